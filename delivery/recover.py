"""Rounds that were asked for: planned in the journal before their first attempt, and those of a whole recovery found a few at a time.

A recovery is worked off by the owner of its partition. A few events are looked up in the folds, planned, delivered; then the next few.
After some seconds its record is done: where it goes on is written to `deliveries.requests` first. So no record is held for long, whatever
has to be waited for, and whoever takes over works no more off again than what one record led to. That is in the journal, because the
record is not committed.

It can wait, so it does: until the folds have taken all that this owner has journalled, so that no two recoveries take up the same delivery;
and in front of an endpoint whose breaker is open or whose rate is used up. It never has more than a few deliveries at the gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from delivery.context import Context, Task
from delivery.deliver import Deliveries
from delivery.endpoints import Endpoint
from delivery.facts import Source
from delivery.journal import Asked, Journal, Page
from delivery.outbox import Outbox
from runtime.crashpoints import reach
from runtime.kafka import Headers, Report
from runtime.metrics import REDELIVERIES
from runtime.telemetry import log
from schemas import codec
from schemas.codec import CodecError
from schemas.deliveries import Recovery, Redelivery, Replay, Requested, RequestRecord
from schemas.events import SCHEMA_VERSION, Ingested
from schemas.ids import EventId
from schemas.keys import record_key
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_REQUESTS

#: Deliveries of a recovery that are planned at once, and those of them at the gate at once.
_TOGETHER: Final = 20
_AT_ONCE: Final = 4
#: How long one record of a recovery is worked at. Facts that come after it are remembered for as long.
_HELD_S: Final = 10.0
#: Between two looks at whether the folds have come that far, and at whether the endpoint takes more.
_LOOK_S: Final = 0.05
_WAIT_MAX_S: Final = 1.0
#: An event whose plan is folded is in the inbox, or will be when that fold has come as far. One that was erased never will.
_INBOX_TIMEOUT_S: Final = 30.0


class Recoveries:
    """Of one partition while it is owned."""

    def __init__(self, context: Context, partition: int, journal: Journal, outbox: Outbox, deliveries: Deliveries) -> None:
        self._context = context
        self._partition = partition
        self._journal = journal
        self._outbox = outbox
        self._deliveries = deliveries
        #: Held from looking events up until their rounds are journalled: the next look waits until the folds have these, too.
        self._planning = asyncio.Lock()

    async def plan(self, asked: Sequence[tuple[Requested, Source, Headers]]) -> None:
        """Journal the rounds that are not journalled yet."""
        sent: list[tuple[Requested, Source, asyncio.Future[Report]]] = []
        for plan, source, headers in asked:
            if not self._journal.is_asked(Asked(plan.event_id, plan.endpoint_id, plan.round)):
                report = self._outbox.append(DELIVERIES_ATTEMPTS, codec.encode(plan), plan.organization, plan.event_id, headers)
                sent.append((plan, source, report))
        for plan, source, report in sent:
            self._journal.add_asked(DELIVERIES_ATTEMPTS, (await report).offset, plan, self._context.clock.now_ms(), source)
            REDELIVERIES.labels(plan.cause).inc()

    async def work_at(self, recovery: Recovery, source: Source, headers: Headers) -> None:
        """For some seconds; then ask for the rest. Where nothing may be sent any more the recovery ends: what was missed stays so."""
        deadline_s, after, why = self._context.clock.monotonic_s() + _HELD_S, recovery.after, "done"
        endpoint = await self._context.endpoints.get(recovery.endpoint_id, fresh=True)
        while endpoint is not None:
            if not await self._is_free(endpoint, deadline_s):
                return await self._ask_for_rest(recovery, after, source, headers)
            async with self._planning:
                if not await self._folds_know_all(deadline_s):
                    return await self._ask_for_rest(recovery, after, source, headers)
                found = await self._context.missed.some(recovery, after, _together(endpoint))
                await self.plan([(requested(recovery, event_id), source, headers) for event_id in found.event_ids])
            reach("recovery.after_plan")
            left = iter(found.event_ids)
            await asyncio.gather(*(self._work_off(recovery, left, source, headers) for _ in range(_AT_ONCE)))
            reach("recovery.after_some")
            after = found.last
            if after is None:
                break
            endpoint = await self._context.endpoints.get(recovery.endpoint_id)
        else:
            why = "endpoint_missing"
        log.info("recovery.ended", round=recovery.round, endpoint_id=recovery.endpoint_id, records=recovery.page + 1, why=why)
        return None

    async def _work_off(self, recovery: Recovery, left: Iterator[EventId], source: Source, headers: Headers) -> None:
        for event_id in left:
            event = await self._in_inbox(recovery, event_id)
            if event is None:
                log.warning("recovery.event_missing", event_id=event_id, round=recovery.round)
                continue
            value = codec.encode(event)
            await self._deliveries.step(
                Task(event, value, recovery.endpoint_id, 1, (), source, headers, round=recovery.round, cause=recovery.cause)
            )
            reach("recovery.in_page")

    async def _ask_for_rest(self, recovery: Recovery, after: EventId | None, source: Source, headers: Headers) -> None:
        page = Page(recovery.round, recovery.page + 1)
        if not self._journal.has_page(page):
            rest = msgspec.structs.replace(recovery, page=page.number, after=after)
            report = await self._outbox.append(DELIVERIES_REQUESTS, codec.encode(rest), recovery.organization, None, headers)
            self._journal.add_page(DELIVERIES_REQUESTS, report.offset, page, self._context.clock.now_ms(), source)
        reach("recovery.after_rest")

    async def _folds_know_all(self, deadline_s: float) -> bool:
        """Wait until they have folded what this owner, and those before it, have journalled until now; False where that takes too long."""
        wanted = self._journal.end(DELIVERIES_ATTEMPTS)
        while self._context.clock.monotonic_s() < deadline_s:
            if await self._context.missed.folded(self._partition) >= wanted:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def _is_free(self, endpoint: Endpoint, deadline_s: float) -> bool:
        """Wait until breaker and rate let an attempt through; False where that would take too long, or the time is over anyway."""
        clock, gate = self._context.clock, self._context.gates.of(endpoint)
        while clock.monotonic_s() < deadline_s:
            wait_s = (gate.free_at_ms() - clock.now_ms()) / 1000
            if wait_s <= 0:
                return True
            await asyncio.sleep(min(wait_s, _WAIT_MAX_S, max(_LOOK_S, deadline_s - clock.monotonic_s())))
        return False

    async def _in_inbox(self, recovery: Recovery, event_id: EventId) -> Ingested | None:
        deadline_s = self._context.clock.monotonic_s() + _INBOX_TIMEOUT_S
        while (event := await self._context.missed.event(recovery.organization, recovery.mode, event_id)) is None:
            if self._context.clock.monotonic_s() > deadline_s:
                return None
            await asyncio.sleep(_LOOK_S)
        return event


def _together(endpoint: Endpoint) -> int:
    """As many as take a second, where there is a rate: turns are not taken from what is new."""
    return _TOGETHER if endpoint.rate_per_minute is None else min(_TOGETHER, max(1, endpoint.rate_per_minute // 60))


def read_request(record: Record) -> tuple[RequestRecord, Ingested | None]:
    """What was asked for, with its event where it brings one. Raises `CodecError`, also for one that is not what the record says."""
    request = codec.request.decode(record.value)
    if record.key != record_key(request.organization):
        raise CodecError("key_mismatch", "the record's key is not the organization in its value")
    if not isinstance(request, Redelivery):
        return request, None
    event = codec.ingested.decode(bytes(request.event))
    if (event.id, event.organization, event.mode) != (request.event_id, request.organization, request.mode):
        raise CodecError("malformed", "the event is not the one that the request names")
    return request, event


def requested(asked: RequestRecord, event_id: EventId | None = None) -> Requested:
    """The plan of a round: of the event that a redelivery names, or of one that a recovery or a replay has found."""
    named = asked.event_id if event_id is None and not isinstance(asked, Replay) else event_id
    if named is None:
        raise ValueError("neither a recovery nor a replay names its events")
    return Requested(
        v=SCHEMA_VERSION, event_id=named, organization=asked.organization, mode=asked.mode, endpoint_id=asked.endpoint_id,
        round=asked.round, cause=asked.cause,
    )  # fmt: skip
