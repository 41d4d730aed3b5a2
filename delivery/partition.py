"""Everything delivery does with one partition while it owns it: plans, attempts, retries, dead letters, hops.

Every step looks into the journal first, so that a step which an earlier owner (or an earlier life of this one) took is not taken again.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from delivery import attempt, delays, policy, requests, sign
from delivery.context import Context, Task
from delivery.endpoints import Endpoint
from delivery.journal import Journal, Leg, Source
from delivery.lanes import Lane
from runtime.crashpoints import reach
from runtime.kafka import Headers, Report
from runtime.lifecycle import die
from runtime.metrics import ATTEMPT_SECONDS, ATTEMPTS, DEAD_LETTERS, IN_FLIGHT, REJECTED, RETRIES_SCHEDULED
from runtime.telemetry import event_line
from schemas import codec
from schemas.codec import HEADER_EVENT_ID, HEADER_REQUEST_ID, HEADER_TRACEPARENT, CodecError, rejected_headers
from schemas.deliveries import Attempted, Dead, Planned, Retry, RetryTask
from schemas.events import SCHEMA_VERSION, Accepted, Ingested
from schemas.keys import record_key
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, EVENTS_ACCEPTED, EVENTS_REJECTED, retry_topic

_BATCH_MAX: Final = 200
_CARRIED: Final = (HEADER_REQUEST_ID, HEADER_TRACEPARENT)


class _RawAccepted(msgspec.Struct):
    event: msgspec.Raw


_raw_event = msgspec.json.Decoder(_RawAccepted)


class PartitionWorker:
    """The owner's work on one partition, from `start` to `stop`."""

    def __init__(self, context: Context, partition: int, lanes: Mapping[str, Lane], journal: Journal, ends: Mapping[str, int]) -> None:
        self._context = context
        self.partition = partition
        self.lanes = lanes
        self.journal = journal
        self._ends = ends
        self._tasks: set[asyncio.Task[None]] = set()
        self._runners: list[asyncio.Task[None]] = []
        self._under_way: set[tuple[str, str, int]] = set()
        self._owned = True
        self._highest = lanes[EVENTS_ACCEPTED].watermark.highest

    def start(self) -> None:
        for lane in self.lanes.values():
            work = self._accepted_lane(lane) if lane.topic == EVENTS_ACCEPTED else self._delay_lane(lane)
            self._runners.append(self._begin(work))

    async def stop(self, timeout_s: float) -> None:
        """Take nothing more; wait for what is under way; cancel the rest, which the next owner does again."""
        for runner in self._runners:
            runner.cancel()
        if self._tasks and timeout_s > 0:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        self._owned = False
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def caught_up(self) -> bool:
        """Whether every lane is done with what an earlier owner could have begun: all that was there when its tails were read."""
        return all(lane.watermark.next_offset >= self._ends[lane.topic] for lane in self.lanes.values())

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
        planned: list[tuple[Planned, Source, asyncio.Future[Report]]] = []
        for record, accepted in batch:
            event = accepted.event
            if journal.plan(event.id) is not None:
                continue
            endpoints = [e.id for e in by_owner.get((event.organization, event.mode), ()) if e.takes(event.type)]
            if endpoints:
                plan = Planned(
                    v=SCHEMA_VERSION, event_id=event.id, organization=event.organization, mode=event.mode,
                    accepted_offset=record.offset, endpoint_ids=endpoints,
                )  # fmt: skip
                sent = self._send(DELIVERIES_ATTEMPTS, codec.encode(plan), event, _carried(record))
                planned.append((plan, Source(lane.topic, record.offset), sent))
        for plan, source, sent in planned:
            report = await sent
            journal.add_plan(DELIVERIES_ATTEMPTS, report.offset, plan, context.clock.now_ms(), source)
        reach("delivery.after_plan")
        for record, accepted in batch:
            self._spawn(self._event(lane, record, accepted.event))

    async def _event(self, lane: Lane, record: Record, event: Ingested) -> None:
        """First attempts at every endpoint of the plan; the record is done when each has led to what follows it."""
        value = _ingested_value(record)
        source = Source(lane.topic, record.offset)
        endpoints = self.journal.plan(event.id) or ()
        if endpoints:
            await asyncio.gather(*(self._attempt(Task(event, value, e, 1, (), source, _carried(record))) for e in endpoints))
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
            lane.take()
            lane.watermark.start(record.offset)
            self._spawn(self._due(lane, record, task, event))

    async def _due(self, lane: Lane, record: Record, task: RetryTask, event: Ingested) -> None:
        remaining_ms = task.not_before_ms - self._context.clock.now_ms()
        source = Source(lane.topic, record.offset)
        if remaining_ms > 0:
            await self._hop(task, event, remaining_ms, source, _carried(record))
        else:
            await self._attempt(Task(event, bytes(task.event), task.endpoint_id, task.attempt, task.history, source, _carried(record)))
        lane.done(record.offset)

    async def _hop(self, task: RetryTask, event: Ingested, remaining_ms: int, source: Source, headers: Headers) -> None:
        """On to the next delay topic, unless this leg was taken before."""
        leg = Leg(task.event_id, task.endpoint_id, task.attempt, task.hop + 1)
        if self.journal.has_leg(leg) or self.journal.attempted(*leg[:3]) is not None:
            return
        await self._send_leg(_next_leg(task), leg, event, remaining_ms, source, headers)

    # -- attempts and what follows

    async def _attempt(self, task: Task) -> None:
        """Make the attempt unless the journal has it, then see to what follows it unless the log has that."""
        key = (task.event.id, task.endpoint_id, task.attempt)
        if key in self._under_way:
            return  # a second copy of the same task, left by a worker that stood still
        self._under_way.add(key)
        try:
            attempted = self.journal.attempted(*key)
            if attempted is None:
                attempted = await self._make(task)
            await self._follow_up(task, attempted)
        finally:
            self._under_way.discard(key)

    async def _make(self, task: Task) -> Attempted:
        context = self._context
        async with context.endpoint_slots(task.endpoint_id), context.slots:
            endpoint = await context.endpoints.get(task.endpoint_id)
            with IN_FLIGHT.track_inprogress(), ATTEMPT_SECONDS.time():
                attempted = await self._post(task, endpoint)
        reach("delivery.after_post")
        report = await self._send(DELIVERIES_ATTEMPTS, codec.encode(attempted), task.event, task.headers)
        self.journal.add_attempt(DELIVERIES_ATTEMPTS, report.offset, attempted, context.clock.now_ms(), task.source)
        reach("delivery.after_journal")
        ATTEMPTS.labels(attempted.outcome, attempted.error or "").inc()
        event_line(
            "delivery.attempted",
            event_id=attempted.event_id,
            organization=attempted.organization,
            mode=attempted.mode,
            endpoint_id=attempted.endpoint_id,
            attempt=attempted.attempt,
            outcome=attempted.outcome,
            status=attempted.status,
            error=attempted.error,
            duration_ms=attempted.duration_ms,
            partition=self.partition,
            journal_offset=report.offset,
            next=None if attempted.next is None else type(attempted.next).__name__.lower(),
            **{name: (value or b"").decode(errors="replace") for name, value in task.headers if name in _CARRIED},
        )
        if attempted.status == policy.GONE:
            await context.endpoints.disable_gone(task.endpoint_id)
        return attempted

    async def _post(self, task: Task, endpoint: Endpoint | None) -> Attempted:
        """The attempt's journal record. An endpoint that was deleted or disabled meanwhile gets nothing, and no more attempts."""
        context, event = self._context, task.event
        started_at_ms, began_s = context.clock.now_ms(), context.clock.monotonic_s()
        following: Retry | Dead | None
        if endpoint is None:
            result, following = attempt.Result(None, "endpoint_missing", b""), Dead(reason="endpoint_missing")
        else:
            content = sign.body(event)
            headers = requests.headers(endpoint, event.id, started_at_ms // 1000, content, task.headers)
            deadline_s = endpoint.deadline_s or context.settings.attempt_timeout_s
            result = await attempt.post(context.client, context.settings, endpoint.url, content, headers, deadline_s)
            ended_at_ms = started_at_ms + round((context.clock.monotonic_s() - began_s) * 1000)
            following = policy.follow_up(result.status, task.attempt, ended_at_ms, endpoint.schedule_s)
        return Attempted(
            v=SCHEMA_VERSION,
            event_id=event.id,
            organization=event.organization,
            mode=event.mode,
            endpoint_id=task.endpoint_id,
            attempt=task.attempt,
            outcome="delivered" if policy.succeeded(result.status) else "failed",
            started_at_ms=started_at_ms,
            duration_ms=round((context.clock.monotonic_s() - began_s) * 1000),
            worker=context.worker,
            status=result.status,
            error=result.error,
            response=base64.b64encode(result.response).decode() if result.response else None,
            next=following,
        )

    async def _follow_up(self, task: Task, attempted: Attempted) -> None:
        following, event = attempted.next, task.event
        if isinstance(following, Retry):
            leg = Leg(event.id, task.endpoint_id, following.attempt, 0)
            if self.journal.has_leg(leg) or self.journal.attempted(*leg[:3]) is not None:
                return
            made = policy.retry_task(attempted, following, task.history, task.value)
            remaining_ms = following.not_before_ms - self._context.clock.now_ms()
            await self._send_leg(made, leg, event, remaining_ms, task.source, task.headers)
        elif isinstance(following, Dead) and not self.journal.is_dead(event.id, task.endpoint_id):
            letter = policy.dead_letter(attempted, following, task.history, task.value)
            report = await self._send(DELIVERIES_DEAD, codec.encode(letter), event, task.headers)
            self.journal.add_dead(DELIVERIES_DEAD, report.offset, event.id, task.endpoint_id, self._context.clock.now_ms(), task.source)
            DEAD_LETTERS.labels(following.reason).inc()

    async def _send_leg(self, task: RetryTask, leg: Leg, event: Ingested, remaining_ms: int, source: Source, headers: Headers) -> None:
        delay_s = delays.choose(self._context.settings.delays_s, remaining_ms)
        topic = retry_topic(delay_s)
        report = await self._send(topic, codec.encode(task), event, headers)
        self.journal.add_leg(topic, report.offset, leg, self._context.clock.now_ms(), source)
        RETRIES_SCHEDULED.labels(topic.rpartition(".")[2]).inc()

    def _send(self, topic: str, value: bytes, event: Ingested, headers: Headers) -> asyncio.Future[Report]:
        """To our own partition of `topic`, only while it is ours."""
        if not self._owned:
            raise asyncio.CancelledError
        self._context.guard.check()
        carried = [(HEADER_EVENT_ID, event.id.encode()), *codec.STANDARD_HEADERS, *headers]
        return self._context.bus.send(topic, value, record_key(event.organization), headers=carried, partition=self.partition)

    async def _reject(self, lane: Lane, record: Record, error: CodecError) -> None:
        headers = [*record.headers, *rejected_headers(lane.topic, lane.partition, record.offset, error)]
        self._context.guard.check()
        await self._context.bus.send(EVENTS_REJECTED, record.value, record.key, headers=headers, partition=self.partition)
        REJECTED.labels(lane.topic, error.reason).inc()
        lane.done(record.offset)


def _carried(record: Record) -> Headers:
    """Request id and trace travel with everything an event leads to."""
    return [(name, value) for name, value in record.headers if name in _CARRIED]


def _ingested_value(record: Record) -> bytes:
    """The ingested value inside an accepted record, verbatim."""
    return bytes(_raw_event.decode(record.value or b"").event)


def _next_leg(task: RetryTask) -> RetryTask:
    return msgspec.structs.replace(task, hop=task.hop + 1)
