"""Everything delivery does with one partition while it owns it: plans, deliveries, hops, what was asked for.

Every step looks into the journal first, so that a step which an earlier owner (or an earlier life of this one) took is not taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from access import event_filters
from delivery import delays
from delivery.context import Context, Task
from delivery.deliver import Deliveries
from delivery.endpoints import Endpoint
from delivery.facts import Source
from delivery.fifo import Fifo
from delivery.fifo_places import Found
from delivery.journal import Journal, Leg
from delivery.lanes import Lane
from delivery.outbox import Outbox
from delivery.recover import Recoveries, read_request, requested
from delivery.replay import Replays
from delivery.values import carried, ingested_value
from runtime.crashpoints import reach
from runtime.kafka import Headers, Report
from runtime.lifecycle import die
from runtime.metrics import HELD, REJECTED
from schemas import codec
from schemas.codec import CodecError, rejected_headers
from schemas.deliveries import Planned, Recovery, Redelivery, Replay, RequestRecord, RetryTask
from schemas.events import SCHEMA_VERSION, Accepted, Ingested
from schemas.ids import EndpointId
from schemas.keys import record_key
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_FIFO, DELIVERIES_REQUESTS, EVENTS_ACCEPTED, EVENTS_REJECTED

_BATCH_MAX: Final = 200


class PartitionWorker:
    """The owner's work on one partition, from `start` to `stop`."""

    def __init__(
        self, context: Context, partition: int, lanes: Mapping[str, Lane], journal: Journal, ends: Mapping[str, int], fifo: Found
    ) -> None:
        self._context = context
        self.partition = partition
        self.lanes = lanes
        self.journal = journal
        self._ends = ends
        self._tasks: set[asyncio.Task[None]] = set()
        self._runners: list[asyncio.Task[None]] = []
        self._outbox = Outbox(context, partition, journal)
        self._deliveries = Deliveries(context, partition, journal, self._outbox)
        self._fifo = Fifo(context, partition, journal, self._outbox, fifo, begin=self._begin)
        self._recoveries = Recoveries(context, partition, journal, self._outbox, self._deliveries)
        self._replays = Replays(context, partition, journal, self._outbox, self._deliveries, plan=self._recoveries.plan)
        self._highest = lanes[EVENTS_ACCEPTED].watermark.highest

    def start(self) -> None:
        named = {EVENTS_ACCEPTED: self._accepted_lane, DELIVERIES_REQUESTS: self._request_lane}
        for lane in self.lanes.values():
            self._runners.append(self._begin(named.get(lane.topic, self._delay_lane)(lane)))
        self._fifo.start()

    async def stop(self, timeout_s: float) -> None:
        """Take nothing more; wait for what is under way; cancel the rest, which the next owner does again."""
        for runner in self._runners:
            runner.cancel()
        ending = asyncio.ensure_future(self._fifo.stop(timeout_s))
        if self._tasks and timeout_s > 0:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        await ending
        self._outbox.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def caught_up(self) -> bool:
        """Whether every lane is done with what an earlier owner could have begun: all that was there when its tails were read."""
        done = all(lane.watermark.next_offset >= self._ends[lane.topic] for lane in self.lanes.values())
        return done and self._fifo.caught_up()

    def is_over(self, source: Source) -> bool:
        """Whether all that a record led to is in the log, and what a new owner would begin after it."""
        if source.topic == DELIVERIES_FIFO:
            return self._fifo.is_over(source.offset)
        return self.lanes[source.topic].watermark.next_offset > source.offset

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose failure ends the process: a lane that stopped in silence would hold its partition for ever."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            die(f"delivery of partition {self.partition} failed: {error!r}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(self._begin(work))

    # -- accepted events

    async def _accepted_lane(self, lane: Lane) -> None:
        while True:
            await lane.head()
            await self._context.slots.eased()
            batch: list[tuple[Record, Accepted]] = []
            for record in lane.take(_BATCH_MAX):
                try:
                    accepted = codec.accepted.decode(record.value)
                    if record.key != record_key(accepted.event.organization):
                        raise CodecError("key_mismatch", "the record's key is not the organization in its value")
                except CodecError as error:
                    lane.watermark.start(record.offset)
                    await self._reject(lane, record, error)
                    continue
                lane.watermark.start(record.offset, accepted.ingested.offset)
                if accepted.ingested.offset <= self._highest:
                    lane.done(record.offset)  # a copy that a crash of dedup left behind
                    continue
                self._highest = accepted.ingested.offset
                batch.append((record, accepted))
            if batch:
                await self._plan(lane, batch)

    async def _plan(self, lane: Lane, batch: Sequence[tuple[Record, Accepted]]) -> None:
        """Fix each event's endpoints in the log before anything is posted, then post."""
        context, journal = self._context, self.journal
        fresh = [accepted.event for _, accepted in batch if journal.plan(accepted.event.id) is None]
        by_owner = await context.endpoints.of((event.organization, event.mode) for event in fresh)
        planned: list[tuple[Planned, Record, Ingested, asyncio.Future[Report]]] = []
        for record, accepted in batch:
            event = accepted.event
            if journal.plan(event.id) is not None:
                continue
            endpoints, held, fifo = _takers(event, by_owner.get((event.organization, event.mode), ()))
            if endpoints or held or fifo:
                HELD.inc(len(held))
                plan = Planned(
                    v=SCHEMA_VERSION, event_id=event.id, organization=event.organization, mode=event.mode,
                    accepted_offset=record.offset, endpoint_ids=endpoints, held=held, fifo=fifo,
                )  # fmt: skip
                sent = self._outbox.send(DELIVERIES_ATTEMPTS, codec.encode(plan), event, carried(record))
                planned.append((plan, record, event, sent))
        for plan, record, event, sent in planned:
            report = await sent
            journal.add_plan(DELIVERIES_ATTEMPTS, report.offset, plan, context.clock.now_ms(), Source(lane.topic, record.offset))
            self._fifo.planned(plan, report.offset, event, record)
        reach("delivery.after_plan")
        for record, accepted in batch:
            self._spawn(self._event(lane, record, accepted.event))

    async def _event(self, lane: Lane, record: Record, event: Ingested) -> None:
        """First attempts at every endpoint of the plan; the record is done when each has led to what follows it."""
        value = ingested_value(record)
        source = Source(lane.topic, record.offset)
        endpoints = self.journal.plan(event.id) or ()
        steps = [self._deliveries.step(Task(event, value, e, 1, (), source, carried(record))) for e in endpoints]
        if len(steps) == 1:  # most have one endpoint: no other task for it
            await steps[0]
        elif steps:
            await asyncio.gather(*steps)
        lane.done(record.offset)

    # -- what was asked for

    async def _request_lane(self, lane: Lane) -> None:
        while True:
            await lane.head()
            await self._context.slots.eased()
            batch: list[tuple[Record, RequestRecord, Ingested | None]] = []
            for record in lane.take(_BATCH_MAX):
                lane.watermark.start(record.offset)
                self.journal.read_until(lane.topic, record.offset + 1)
                try:
                    batch.append((record, *read_request(record)))
                except CodecError as error:
                    await self._reject(lane, record, error)
            rounds = [(requested(one), Source(lane.topic, r.offset), carried(r)) for r, one, _ in batch if isinstance(one, Redelivery)]
            await self._recoveries.plan(rounds)
            for record, request, event in batch:
                self._spawn(self._requested(lane, record, request, event))

    async def _requested(self, lane: Lane, record: Record, request: RequestRecord, event: Ingested | None) -> None:
        source = Source(lane.topic, record.offset)
        if isinstance(request, Recovery):
            await self._recoveries.work_at(request, source, carried(record))
        elif isinstance(request, Replay):
            await self._replays.page(request, source, carried(record))
        elif event is not None:
            await self._deliveries.step(
                Task(
                    event, bytes(request.event), request.endpoint_id, 1, (), source, carried(record),
                    round=request.round, cause=request.cause,
                )
            )  # fmt: skip
        lane.done(record.offset)

    # -- delay topics

    async def _delay_lane(self, lane: Lane) -> None:
        delay_s = self._context.topic_delays[lane.topic]
        while True:
            record = await lane.head()
            try:
                task = codec.retry_task.decode(record.value)
                event = codec.ingested.decode(bytes(task.event))
            except CodecError as error:
                lane.take()
                lane.watermark.start(record.offset)
                await self._reject(lane, record, error)
                continue
            due_ms = delays.due_ms(task.not_before_ms, record.timestamp_ms, delay_s)
            while (early_ms := due_ms - self._context.clock.now_ms()) > 0:  # noqa: ASYNC110 - a time is waited for, and checked again
                await asyncio.sleep(early_ms / 1000)
            await self._context.slots.eased()
            lane.take()
            lane.watermark.start(record.offset)
            self._spawn(self._due(lane, record, task, event))
            await asyncio.sleep(0)  # many may be due at once, and other deliveries are under way

    async def _due(self, lane: Lane, record: Record, task: RetryTask, event: Ingested) -> None:
        remaining_ms = task.not_before_ms - self._context.clock.now_ms()
        source = Source(lane.topic, record.offset)
        if remaining_ms > 0:
            await self._hop(task, event, source, carried(record))
        else:
            await self._deliveries.step(
                Task(
                    event, bytes(task.event), task.endpoint_id, task.attempt, task.history, source, carried(record),
                    task.hop, task.parked, task.turn, task.not_before_ms, task.round, task.cause,
                )
            )  # fmt: skip
        lane.done(record.offset)

    async def _hop(self, task: RetryTask, event: Ingested, source: Source, headers: Headers) -> None:
        """On to the next delay topic, unless this leg was taken before."""
        leg = Leg(task.event_id, task.endpoint_id, task.attempt, task.hop + 1, task.round)
        if self.journal.has_leg(leg) or self.journal.has_attempt(leg.attempt_key):
            return
        await self._outbox.leg(_next_leg(task), event, source, headers)

    async def _reject(self, lane: Lane, record: Record, error: CodecError) -> None:
        headers = [*record.headers, *rejected_headers(lane.topic, lane.partition, record.offset, error)]
        self._context.guard.check()
        await self._context.bus.send(EVENTS_REJECTED, record.value, record.key, headers=headers, partition=self.partition)
        REJECTED.labels(lane.topic, error.reason).inc()
        lane.done(record.offset)


def _takers(event: Ingested, endpoints: Sequence[Endpoint]) -> tuple[list[EndpointId], list[EndpointId], list[EndpointId]]:
    """Who gets an event, who would if it were not disabled, and who gets it in order. Operational events go to those only who ask for them
    by name."""
    takers = [e for e in endpoints if event_filters.delivers(e.event_types, event.type)]
    return (
        [e.id for e in takers if e.enabled and not e.fifo],
        [e.id for e in takers if not e.enabled],
        [e.id for e in takers if e.enabled and e.fifo],
    )


def _next_leg(task: RetryTask) -> RetryTask:
    return msgspec.structs.replace(task, hop=task.hop + 1)
