"""What a replay would deliver, counted by reading the log as delivery will; and its requests, appended to the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from access import event_filters
from access.changes import Owner
from access.endpoints import Endpoint
from access.organizations import NotPossible
from access.replay_range import Selection
from access.replays import Replay, Wanted
from projections.log_reader import LogReader, Range
from projections.redeliveries import Redeliveries
from runtime.kafka import LIBRDKAFKA_LOGGER, Headers, client_config
from runtime.settings import KafkaSettings, Settings
from schemas.ids import EndpointId, OrganizationId
from schemas.keys import partition_of, record_key
from schemas.problems import ProblemError
from schemas.topics import EVENTS_ACCEPTED

#: An event may be received this long before it stands in the log, or by a clock that is so far behind or ahead. Times are exact all the
#: same: they are those of the events. This only bounds what is read.
_SLACK_MS: Final = 3_600_000
_REQUEST_TIMEOUT_S: Final = 10.0


class Count(NamedTuple):
    """`deliveries`: by endpoint, of those events that it takes by its filter of now."""

    events: int
    deliveries: dict[EndpointId, int]

    def shown(self, takers: Sequence[Endpoint]) -> list[dict[str, object]]:
        return [{"endpoint_id": one.id, "url": one.configuration.url, "deliveries": self.deliveries[one.id]} for one in takers]


class TooMuch(NotPossible):
    """Counting took longer than it may."""


def resolve(
    kafka: KafkaSettings, owner: Owner, *, since_ms: int, until_ms: int, from_position: int | None, until_position: int | None
) -> Range:
    """Positions in the owner's partition of `events.accepted` that hold a range; its end is now at the latest.

    Raises `ValueError` for positions that are not there, `confluent_kafka.KafkaException`.
    """
    partition = _partition(kafka, owner)
    consumer = Consumer({**client_config(kafka, "replay"), "group.id": "triggers-replay"}, logger=LIBRDKAFKA_LOGGER)
    try:
        low, end = consumer.get_watermark_offsets(TopicPartition(EVENTS_ACCEPTED, partition), timeout=_REQUEST_TIMEOUT_S)
        times = [max(since_ms - _SLACK_MS, 0), until_ms + _SLACK_MS]
        asked = [
            consumer.offsets_for_times([TopicPartition(EVENTS_ACCEPTED, partition, ms)], timeout=_REQUEST_TIMEOUT_S)[0] for ms in times
        ]
    finally:
        consumer.close()
    first, last = (found.offset if found.offset >= 0 else end for found in asked)
    for name, position in (("from", from_position), ("until", until_position)):
        if position is not None and not low <= position <= end:
            raise ValueError(f"the {name} position must be {low} to {end}: {EVENTS_ACCEPTED}[{partition}] has no other")
    begin = max(low, first, from_position or 0)
    return Range(begin, max(begin, min(end, last, end if until_position is None else until_position)))


def count(settings: Settings, wanted: Wanted, takers: Sequence[Endpoint], *, timeout_s: float | None = None) -> Count:
    """Reads the range. Raises `TooMuch`, `projections.log_reader.LogError`, `confluent_kafka.KafkaException`."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    partition = _partition(settings.kafka, wanted.owner)
    selection = Selection(
        OrganizationId(wanted.owner.organization), wanted.owner.mode, since_ms=wanted.since_ms, until_ms=wanted.until_ms,
        types=wanted.event_types,
    )  # fmt: skip
    filters = {one.id: one.configuration.event_types for one in takers}
    events, deliveries = 0, dict.fromkeys(filters, 0)
    reader = LogReader(
        settings.kafka, batch_records_max=settings.rebuild.batch_records_max, stall_timeout_s=settings.rebuild.stall_timeout_s
    )  # fmt: skip
    try:
        for batch in reader.read({(EVENTS_ACCEPTED, partition): Range(wanted.from_position, wanted.until_position)}):
            for record in (record for chunk in batch for record in chunk.records):
                if (accepted := selection.take(record.key, record.value)) is not None:
                    events += 1
                    for endpoint, types in filters.items():
                        deliveries[endpoint] += event_filters.delivers(types, accepted.event.type)
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise TooMuch(f"the range takes longer than {timeout_s:g} s to count: narrow it, or run `triggers replay start --dry-run`")
    finally:
        reader.close()
    return Count(events, deliveries)


async def ask_for(redeliveries: Redeliveries, replay: Replay, headers: Headers) -> None:
    """Raises the problems `not-appended` and `outcome-unknown`: resuming the replay asks again, and makes nothing twice."""
    try:
        for request in replay.requests():
            await redeliveries.append(request, headers)
    except ProblemError as error:
        detail = f"The replay {replay.id} is noted, but the log did not confirm all of it. Resume it: that asks again for what is missing."
        raise ProblemError(error.problem, detail, headers=error.headers, members=error.members) from error


def _partition(kafka: KafkaSettings, owner: Owner) -> int:
    return partition_of(record_key(OrganizationId(owner.organization)), kafka.partitions)
