"""The dedup table held against the log: whether its changelog has the marker of every accepted event that still counts, and no other.

The accepted records are the decisions dedup made, so they say what the table must hold (ADR 5). Nothing is forwarded and no offset moves:
only markers are written, below the offsets that dedup has committed. A worker that starts afterwards recovers them and goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition

from processors.dedup import Marker, decode_marker, newer
from processors.rebuild import accepted_markers, read, reader, write_markers
from runtime.clock import Clock
from runtime.settings import Settings
from runtime.topics import admin, members
from schemas.events import SCHEMA_VERSION
from schemas.ids import EventId
from schemas.topics import DEDUP_APP, DEDUP_CHANGELOG, EVENTS_INGESTED

_REQUEST_TIMEOUT_S: Final = 30.0
#: Differences named of each kind and partition.
_LISTED_MAX: Final = 20
#: The id of no event: a marker with it and without age holds nothing.
_NOBODY: Final = EventId("evt_00000000-0000-7000-8000-000000000000")


class TableError(RuntimeError):
    """The table cannot be rebuilt as things are. The text says what to do."""


class Difference(NamedTuple):
    """`missing`: an accepted event without a marker, or with another: a copy of it would be taken again. `unfounded`: a marker without an
    accepted event: its key would be refused for nothing."""

    kind: str
    partition: int
    offset: int
    event_id: str


@dataclass
class Report:
    """Of all partitions. `offsets`: where dedup stands in `events.ingested` (-1: it never committed)."""

    offsets: dict[int, int] = field(default_factory=dict)
    markers: int = 0
    missing: int = 0
    unfounded: int = 0
    unreadable: int = 0
    written: int = 0
    listed: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (self.missing or self.unfounded or self.unreadable)


class _Found(NamedTuple):
    missing: dict[bytes, Marker]
    unfounded: dict[bytes, Marker]


def rebuild_table(settings: Settings, clock: Clock, *, verify_only: bool, accept: bool) -> Report:
    """Compare each partition, and write what is missing unless `verify_only`; with `accept` unfounded markers are put right too.

    Raises `TableError` while workers run that would not see what is written, `confluent_kafka.KafkaException`.
    """
    if not verify_only:
        _refuse_workers(settings)
    report = Report()
    with reader(settings) as consumer:
        places = [TopicPartition(EVENTS_INGESTED, number) for number in range(settings.kafka.partitions)]
        for place in consumer.committed(places, timeout=_REQUEST_TIMEOUT_S):
            report.offsets[place.partition] = max(place.offset, -1)
            if place.offset < 0:
                continue  # never worked on: every marker is one of the work to come
            since_ms = _since_ms(consumer, place, clock, settings)
            wanted = accepted_markers(consumer, place.partition, since_ms, place.offset)
            held, unreadable = _held(consumer, place.partition)
            found = compare(wanted, held, since_ms, place.offset)
            report.markers += len(wanted)
            report.missing += len(found.missing)
            report.unfounded += len(found.unfounded)
            report.unreadable += unreadable
            report.listed += _listed("missing", found.missing) + _listed("unfounded", found.unfounded)
            repair = {} if verify_only else {**found.missing, **(corrections(wanted, found.unfounded) if accept else {})}
            write_markers(settings, place.partition, repair)
            report.written += len(repair)
    return report


def compare(wanted: Mapping[bytes, Marker], held: Mapping[bytes, Marker], since_ms: int, below: int) -> _Found:
    """What the accepted records say against what the changelog says. Markers from offset `below` on, or older than `since_ms`, may be
    anything: their records are still to be judged (again), or count no more."""
    missing, unfounded = {}, {}
    for key, marker in wanted.items():
        have = held.get(key)
        if have is None or have.offset < marker.offset or (have.offset == marker.offset and have != marker):
            missing[key] = marker
    for key, have in held.items():
        true = wanted.get(key)
        if (
            have.offset < below
            and have.appended_at_ms >= since_ms
            and (true is None or (true.event_id != have.event_id and true.offset < have.offset))
        ):
            unfounded[key] = have
    return _Found(missing, unfounded)


def corrections(wanted: Mapping[bytes, Marker], unfounded: Mapping[bytes, Marker]) -> dict[bytes, Marker]:
    """In recovery the highest position wins and of equal ones the last: so the truth is written at the position of what is wrong."""
    return {
        key: Marker(SCHEMA_VERSION, wrong.partition, wrong.offset, true.appended_at_ms, true.event_id, true.fingerprint)
        if (true := wanted.get(key))
        else Marker(SCHEMA_VERSION, wrong.partition, wrong.offset, 0, _NOBODY, "")
        for key, wrong in unfounded.items()
    }


def _refuse_workers(settings: Settings) -> None:
    client = admin(settings.kafka)  # kept until the answer is there: a client that is gone never answers
    if count := members(client, [DEDUP_APP])[DEDUP_APP]:
        raise TableError(
            f"{count} dedup workers are running, and would not read what is written: stop `triggers process dedup` everywhere (one "
            f"that was killed leaves after {settings.kafka.session_timeout_s:g} s), or compare with --verify-only"
        )


def _since_ms(consumer: Consumer, committed: TopicPartition, clock: Clock, settings: Settings) -> int:
    """From when on an accepted event counts for the first record that is still to be judged."""
    first = next(read(consumer, TopicPartition(EVENTS_INGESTED, committed.partition, committed.offset)), None)
    until_ms = clock.now_ms() if first is None else first.timestamp()[1]
    return until_ms - int(settings.ingest.idempotency_window_s * 1000)


def _held(consumer: Consumer, partition: int) -> tuple[dict[bytes, Marker], int]:
    """The changelog as recovery would fold it, and how many of its records are no markers."""
    low, _ = consumer.get_watermark_offsets(TopicPartition(DEDUP_CHANGELOG, partition), timeout=_REQUEST_TIMEOUT_S)
    held: dict[bytes, Marker] = {}
    unreadable = 0
    for message in read(consumer, TopicPartition(DEDUP_CHANGELOG, partition, low)):
        key, value = message.key(), message.value()
        if value is None:
            continue
        try:
            held[key or b""] = newer(held.get(key or b""), decode_marker(value))
        except msgspec.DecodeError:
            unreadable += 1
    return held, unreadable


def _listed(kind: str, markers: Mapping[bytes, Marker]) -> list[Difference]:
    ordered = sorted(markers.values(), key=lambda marker: marker.offset)[:_LISTED_MAX]
    return [Difference(kind, marker.partition, marker.offset, marker.event_id) for marker in ordered]
