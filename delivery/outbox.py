"""What the owner of one partition writes: only while it is the owner, only to its own partition, and remembered in the journal."""

from __future__ import annotations

import asyncio

from delivery import delays
from delivery.context import Context
from delivery.facts import Source
from delivery.journal import Journal, Leg
from runtime.kafka import Headers, Report
from runtime.metrics import RETRIES_SCHEDULED
from schemas import codec
from schemas.codec import HEADER_EVENT_ID
from schemas.deliveries import RetryTask
from schemas.events import PLAIN, Encoding, Ingested
from schemas.ids import EndpointId, EventId, OrganizationId
from schemas.keys import record_key
from schemas.topics import DELIVERIES_FIFO, retry_topic


class Outbox:
    """`close` when the partition is given back."""

    def __init__(self, context: Context, partition: int, journal: Journal) -> None:
        self._context = context
        self._partition = partition
        self._journal = journal
        self._owned = True

    @property
    def is_open(self) -> bool:
        return self._owned

    def close(self) -> None:
        self._owned = False

    def send(self, topic: str, value: bytes, event: Ingested, headers: Headers) -> asyncio.Future[Report]:
        """To our own partition of `topic`, only while it is ours: else `asyncio.CancelledError`."""
        return self.append(topic, value, event.organization, event.id, headers, encoding=event.encoding)

    def append(
        self,
        topic: str,
        value: bytes,
        organization: OrganizationId,
        event_id: EventId | None,
        headers: Headers,
        *,
        encoding: Encoding = PLAIN,
    ) -> asyncio.Future[Report]:
        """The same for what is known of its event, or of none."""
        if not self._owned:
            raise asyncio.CancelledError
        self._context.guard.check()
        about = [] if event_id is None else [(HEADER_EVENT_ID, event_id.encode())]
        carried = [*about, *codec.standard_headers(encoding), *headers]
        return self._context.bus.send(topic, value, record_key(organization), headers=carried, partition=self._partition)

    def position(self, endpoint_id: EndpointId, value: bytes | None) -> asyncio.Future[Report]:
        """How far a FIFO endpoint is, None where it is no more; only while the partition is ours: else `asyncio.CancelledError`."""
        if not self._owned:
            raise asyncio.CancelledError
        self._context.guard.check()
        headers = codec.STANDARD_HEADERS
        return self._context.bus.send(DELIVERIES_FIFO, value, endpoint_id.encode(), headers=headers, partition=self._partition)

    async def leg(self, task: RetryTask, event: Ingested, source: Source, headers: Headers) -> None:
        """Onto the delay topic that fits what remains until the task is due."""
        context = self._context
        put_off = task.parked > 0 or task.turn is not None
        value = codec.encode(task)
        async with context.legs.of(len(value)):
            remaining_ms = task.not_before_ms - context.clock.now_ms()
            topic = retry_topic(delays.choose(context.parking_delays_s if put_off else context.settings.delays_s, remaining_ms))
            report = await self.send(topic, value, event, headers)
        leg = Leg(task.event_id, task.endpoint_id, task.attempt, task.hop, task.round)
        self._journal.add_leg(topic, report.offset, leg, context.clock.now_ms(), source)
        RETRIES_SCHEDULED.labels(topic.rpartition(".")[2]).inc()
