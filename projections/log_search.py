"""Looking for one event in the log: each topic from where the event can be at the earliest to where it can be at the latest.

An event id holds its time, which bounds where its ingested record is. From there each topic begins at the time of what led to it, and
ends where dedup's order shows that nothing more can come, or at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from projections.log_reader import LogReader, Place, Range, since
from projections.trail import Trail
from runtime.settings import Settings
from schemas.deliveries import Dead, Retry
from schemas.events import Origin
from schemas.ids import OrganizationId, event_time_ms
from schemas.keys import partition_of, record_key
from schemas.records import Record
from schemas.topics import (
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    INBOX_ACKS,
    retry_topic,
)

_BATCH_RECORDS_MAX: Final = 2_000
#: Read ahead of what is asked for: ranges are short, and left as soon as they have told enough.
_AHEAD_KBYTES: Final = 8_192

#: `(topic, records read, records of the range)`.
Progress = Callable[[str, int, int], None]


class Span(NamedTuple):
    """What was read of a partition: `begin` to `end` (exclusive). `whole` unless the limit of records came first."""

    topic: str
    partition: int
    begin: int
    end: int
    whole: bool


class _Judged(msgspec.Struct):
    ingested: Origin


_judged = msgspec.json.Decoder(_Judged)


class LogSearch:
    """Fills a trail. `close` it. Every step raises `projections.log_reader.LogError` and `confluent_kafka.KafkaException`."""

    def __init__(self, settings: Settings, trail: Trail, progress: Progress) -> None:
        self._kafka = settings.kafka
        self._delays_s = settings.delivery.delays_s
        self._slack_ms = round(settings.operating.clock_slack_s * 1000)
        self._left = settings.operating.read_records_max
        self._trail = trail
        self._progress = progress
        self.spans: list[Span] = []
        self._reader = LogReader(
            settings.kafka, batch_records_max=_BATCH_RECORDS_MAX, stall_timeout_s=settings.operating.stall_timeout_s, headers=True,
            ahead_kbytes=_AHEAD_KBYTES,
        )  # fmt: skip

    def close(self) -> None:
        self._reader.close()

    def partitions(self) -> Sequence[int]:
        """Those that can hold the event: one where the organization is known."""
        organization = self._trail.organization
        count = self._kafka.partitions
        return range(count) if organization is None else [partition_of(record_key(OrganizationId(organization)), count)]

    def read_copy(self, partition: int, offset: int) -> None:
        """One ingested record, whose place is known: what no fold keeps is in its headers."""
        self._scan((EVENTS_INGESTED, partition), Range(offset, offset + 1))

    def find(self, within_ms: int) -> None:
        """Its ingested records, from a little before its id's time until `within_ms` after it."""
        at_ms = event_time_ms(self._trail.event_id)
        places = [(EVENTS_INGESTED, number) for number in self.partitions()]
        begins = since(self._kafka, dict.fromkeys(places, at_ms - self._slack_ms))
        ends = since(self._kafka, dict.fromkeys(places, at_ms + within_ms))
        for place in places:
            # What is appended while we look belongs to the window as well, but the end that was seen first is enough.
            self._scan(place, Range(begins[place].begin, max(begins[place].begin, ends[place].begin)))
            if self._trail.copies:
                return

    def judge(self) -> None:
        """What dedup made of it: outputs come in the order of the ingested records and carry their time."""
        trail = self._trail
        if not trail.copies:
            return
        partition, first_ms, last = self._partition(), min(trail.copies.values()), max(at.offset for at in trail.copies)

        def passed(record: Record) -> bool:
            try:
                return _judged.decode(record.value or b"").ingested.offset >= last
            except msgspec.DecodeError:
                return False

        topics = {EVENTS_ACCEPTED: passed, EVENTS_DUPLICATES: passed, EVENTS_REJECTED: _never}
        ranges = since(self._kafka, {(topic, partition): first_ms - self._slack_ms for topic in topics})
        for topic, stop in topics.items():
            self._scan((topic, partition), ranges[topic, partition], stop)

    def follow(self, floors: Mapping[Place, int]) -> None:
        """Its acknowledgement and its deliveries, above what the folds have taken."""
        trail = self._trail
        if trail.accepted is None:
            return
        partition, began_ms = trail.accepted.at.partition, self._appended_ms()
        places = [(topic, partition) for topic in (INBOX_ACKS, DELIVERIES_ATTEMPTS)]
        for place, found in since(self._kafka, dict.fromkeys(places, began_ms - self._slack_ms)).items():
            self._scan(place, Range(min(max(found.begin, floors.get(place, 0)), found.end), found.end))

    def follow_up(self) -> None:
        """Where its next attempts wait, and its dead letters."""
        times: dict[Place, int] = {}
        trail = self._trail
        if trail.accepted is None:
            return
        partition = trail.accepted.at.partition
        for endpoint_id in trail.endpoints():
            made = [one for _, one in trail.made(endpoint_id, trail.last_round(endpoint_id))]
            last = max(made, key=lambda one: one.attempt, default=None)
            since_ms = (self._appended_ms() if last is None else last.started_at_ms) - self._slack_ms
            if last is None or isinstance(last.next, Retry):
                topics = [retry_topic(delay) for delay in self._delays_s]
            else:
                topics = [DELIVERIES_DEAD] if isinstance(last.next, Dead) else []
            for topic in topics:
                times[topic, partition] = min(since_ms, times.get((topic, partition), since_ms))
        for place, found in since(self._kafka, times).items():
            self._scan(place, found)

    def _partition(self) -> int:
        return min(self._trail.copies).partition

    def _appended_ms(self) -> int:
        return min(self._trail.copies.values())

    def _scan(self, place: Place, wanted: Range, stop: Callable[[Record], bool] | None = None) -> None:
        """Read a range of one partition until `stop` says of a batch's last record that the rest cannot tell anything."""
        limit = min(wanted.end, wanted.begin + self._left)
        end, stopped = wanted.begin, False
        for batch in self._reader.read({place: Range(wanted.begin, limit)}):
            for chunk in batch:
                for record in chunk.records:
                    self._trail.learn(*place, record)
                end = chunk.end
                stopped = stop is not None and stop(chunk.records[-1])
            self._progress(place[0], end - wanted.begin, wanted.end - wanted.begin)
            if stopped:
                break
        self._left -= end - wanted.begin
        self.spans.append(Span(*place, wanted.begin, end, stopped or end == wanted.end))


def _never(_: Record) -> bool:
    return False
