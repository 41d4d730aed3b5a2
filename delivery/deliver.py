"""One delivery, one step: through the endpoint's gate to an attempt that is journalled, or put off; then what follows from it.

Every step looks into the journal first, so that a step which an earlier owner (or an earlier life of this one) took is not taken again.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Final, NamedTuple, get_args

import msgspec

from access.envelopes import DataKey, attempt_name
from delivery import attempt, operational, policy, requests, sign
from delivery.context import Context, Task
from delivery.endpoints import Absent, Endpoint
from delivery.gates import Admitted, Gate, Refused, Verdict
from delivery.health import Health
from delivery.journal import Attempt, Journal, Leg
from delivery.opening import kept
from delivery.outbox import Outbox
from delivery.values import CARRIED
from runtime.crashpoints import reach
from runtime.metrics import ATTEMPT_SECONDS, ATTEMPTS, DEAD_LETTERS, PARKED
from runtime.telemetry import event_line
from schemas import codec
from schemas.deliveries import Attempted, Dead, Retry, RetryTask
from schemas.events import PLAIN, SCHEMA_VERSION
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, EVENTS_INGESTED

#: A cause of its own: one attempt, which is no delivery of an event and tells nothing about the endpoint but to who asked for it.
_TEST: Final = "test"
#: A retry of a replay that was cancelled: nothing is posted, and nothing follows.
CANCELLED: Final = "cancelled"
#: Its data key was destroyed: nothing can be posted, ever.
ERASED: Final = "erased"
_STOPPED: Final = frozenset({"paused", CANCELLED})
#: Error classes that tell nothing about the endpoint.
_NOT_TOLD: Final = frozenset({*get_args(Absent), policy.LOCAL, ERASED})
#: Part of the smallest delay that work which waits for a breaker is spread over.
_SPREAD: Final = 0.5


#: Of a pair of labels: finding it anew costs more than counting.
_counter: Final = cache(ATTEMPTS.labels)


class _Made(NamedTuple):
    """An attempt made now, and what it changed. `gate` is None where there is no endpoint any more."""

    attempted: Attempted
    gate: Gate | None
    verdict: Verdict


class Deliveries:
    """The deliveries of one partition while it is owned."""

    def __init__(self, context: Context, partition: int, journal: Journal, outbox: Outbox) -> None:
        self._context = context
        self._partition = partition
        self._journal = journal
        self._outbox = outbox
        self._health = Health(context, outbox)
        #: Steps under way, and what others that come to the same one wait for.
        self._under_way: dict[Attempt, asyncio.Event | None] = {}

    async def step(self, task: Task) -> None:
        """Make the attempt unless the log has it, or has it put off; then see to what follows it unless the log has that."""
        key = task.attempt_key
        while key in self._under_way:
            other = self._under_way[key] = self._under_way[key] or asyncio.Event()
            await other.wait()  # another copy of the task, left by a worker that stood still, or its earlier leg: it may settle this one
        self._under_way[key] = None
        try:
            if self._journal.has_leg(Leg(*key[:3], task.hop + 1, task.round)):
                return  # put off, or sent on, before: the later leg goes on from there
            if self._journal.has_attempt(key):
                if (attempted := self._journal.failed(key)) is not None:
                    await self._follow_up(task, attempted)
                    self._settled(task)
            elif (made := await self._make(task)) is not None:
                if made.attempted.next is not None:
                    await self._follow_up(task, made.attempted)
                    self._settled(task)
                if made.gate is not None:
                    await self._health.learn(made.gate, task.event.type, made.attempted, made.verdict)
        finally:
            if (waited_for := self._under_way.pop(key)) is not None:
                waited_for.set()

    def _settled(self, task: Task) -> None:
        """All that follows the attempt is in the log."""
        self._journal.settle(task.attempt_key)

    async def _make(self, task: Task) -> _Made | None:
        """The attempt, journalled; None where it was put off."""
        context = self._context
        endpoint = await self._endpoint(task)
        if endpoint is None:
            missing = await self._absent(task)
            await self._journalled(task, missing)
            return _Made(missing, None, Verdict())
        if task.cause == "replay" and task.hop >= 0 and (state := await context.replays.state(task.round)) in _STOPPED:
            return await self._stopped(task, endpoint, cancelled=state == CANCELLED)
        if task.event.encoding != PLAIN and await context.opening.key_of(task.event) is None:
            return await self._gone_for_good(task, endpoint)
        gate = context.gates.of(endpoint)
        if task.cause == _TEST:
            return await self._test(task, endpoint, slow=gate.is_slow)
        admitted = await gate.enter(again=task.hop >= 0, turn=task.turn, turn_ms=task.not_before_ms)
        if isinstance(admitted, Refused):
            await self._park(task, endpoint, admitted)
            return None
        made: Attempted | None = None
        verdict = Verdict()
        learned: bool | None = None

        async def attempted() -> Attempted:
            gate.begin(admitted)
            return await self._post(task)

        try:
            made = await context.slots.run(attempted, slow=gate.is_slow)
            if made is not None and made.error not in _NOT_TOLD:
                learned = _teaches(made, admitted)
        finally:
            verdict = gate.leave(admitted, learned)
        if made is None:
            await self._park(task, endpoint, Refused("slow"))
            return None
        if made.error == policy.LOCAL and policy.is_our_outage(task.parked, endpoint.schedule_s, context.reaches_others()):
            await self._park(task, endpoint, Refused("local"))
            return None
        if learned:
            context.delivered()
        reach("delivery.after_post")
        await self._journalled(task, made)
        return _Made(made, None if made.error == ERASED else gate, verdict)

    async def _stopped(self, task: Task, endpoint: Endpoint, *, cancelled: bool) -> _Made | None:
        """What waits on a delay topic of a replay that is paused goes on waiting; of one that was cancelled it ends."""
        if not cancelled:
            await self._park(task, endpoint, Refused("paused"))
            return None
        made = self._attempted(task, endpoint, self._context.clock.now_ms(), 0, attempt.Result(None, CANCELLED, b""))
        await self._journalled(task, made)
        return _Made(made, None, Verdict())

    async def _gone_for_good(self, task: Task, endpoint: Endpoint) -> _Made:
        """Of an erased event: the delivery ends. It says nothing about the endpoint, and leaves no dead letter."""
        made = self._attempted(task, endpoint, self._context.clock.now_ms(), 0, attempt.Result(None, ERASED, b""))
        await self._journalled(task, made)
        return _Made(made, None, Verdict())

    async def _test(self, task: Task, endpoint: Endpoint, *, slow: bool) -> _Made | None:
        """Past the gate, which neither holds it back nor learns of it."""
        made = await self._context.slots.run(lambda: self._post(task), slow=slow)
        if made is None:
            await self._park(task, endpoint, Refused("slow"))
            return None
        await self._journalled(task, made)
        return _Made(made, None, Verdict())

    async def _endpoint(self, task: Task) -> Endpoint | None:
        """None where nothing may be sent any more. A test is made at a disabled endpoint too: so its owner learns that it works again."""
        fresh = task.cause == "retry" and task.hop < 0  # who asks may have enabled it just before
        endpoint = await self._context.endpoints.get(task.endpoint_id, disabled_too=task.cause == _TEST, fresh=fresh)
        event = task.event
        ours = endpoint is not None and (endpoint.organization, endpoint.mode) == (event.organization, event.mode)
        return endpoint if ours else None

    async def _journalled(self, task: Task, made: Attempted) -> None:
        report = await self._outbox.send(DELIVERIES_ATTEMPTS, codec.encode(made), task.event, task.headers)
        self._journal.add_attempt(DELIVERIES_ATTEMPTS, report.offset, made, self._context.clock.now_ms(), task.source)
        reach("delivery.after_journal")
        _counter(made.outcome, made.error or "").inc()
        event_line(
            "delivery.attempted",
            event_id=made.event_id,
            organization=made.organization,
            mode=made.mode,
            endpoint_id=made.endpoint_id,
            attempt=made.attempt,
            outcome=made.outcome,
            status=made.status,
            error=made.error,
            duration_ms=made.duration_ms,
            partition=self._partition,
            journal_offset=report.offset,
            next=None if made.next is None else type(made.next).__name__.lower(),
            **({"round": made.round, "cause": made.cause} if made.round else {}),
            **{name.replace("-", "_"): (value or b"").decode(errors="replace") for name, value in task.headers if name in CARRIED},
        )

    async def _post(self, task: Task) -> Attempted:
        """The attempt's journal record. An endpoint that was deleted or disabled meanwhile gets nothing, and no more attempts."""
        context, event = self._context, task.event
        endpoint = await self._endpoint(task)
        started_at_ms, began_s = context.clock.now_ms(), context.clock.monotonic_s()
        if endpoint is None:
            return await self._absent(task)
        key: DataKey | None = None
        if event.encoding != PLAIN:
            opened = await context.opening.open(event)
            if opened is None:  # erased while it waited for its turn
                return self._attempted(task, endpoint, started_at_ms, 0, attempt.Result(None, ERASED, b""))
            event, key = opened
        content = sign.body(event)
        headers = requests.headers(endpoint, event.id, started_at_ms // 1000, content, task.headers, task.cause)
        deadline_s = endpoint.deadline_s or context.settings.attempt_timeout_s
        result = await context.sender.post(endpoint.url, content, headers, deadline_s)
        took_s = context.clock.monotonic_s() - began_s
        ATTEMPT_SECONDS.observe(took_s)
        return self._attempted(task, endpoint, started_at_ms, round(took_s * 1000), result, key)

    async def _absent(self, task: Task) -> Attempted:
        why = await self._context.endpoints.why_absent(task.endpoint_id)
        return self._attempted(task, None, self._context.clock.now_ms(), 0, attempt.Result(None, why, b""))

    def _attempted(
        self, task: Task, endpoint: Endpoint | None, started_at_ms: int, took_ms: int, result: attempt.Result, key: DataKey | None = None
    ) -> Attempted:
        event = task.event
        made = Attempted(
            v=SCHEMA_VERSION,
            event_id=event.id,
            organization=event.organization,
            mode=event.mode,
            endpoint_id=task.endpoint_id,
            attempt=task.attempt,
            outcome="delivered" if policy.succeeded(result.status) else "failed",
            started_at_ms=started_at_ms,
            duration_ms=took_ms,
            worker=self._context.worker,
            status=result.status,
            error=result.error,
            response=kept(result.response, task.event, attempt_name(task.endpoint_id, task.round, task.attempt), key),
            round=task.round,
            cause=task.cause,
        )
        following = None if made.outcome == "delivered" else self._following(task, endpoint, made, result.retry_after)
        return made if following is None else msgspec.structs.replace(made, next=following)

    def _following(self, task: Task, endpoint: Endpoint | None, made: Attempted, retry_after: str | None) -> Retry | Dead | None:
        if task.cause == _TEST or made.error == CANCELLED:
            return None
        if made.error == ERASED:
            return Dead(reason="erased")
        if endpoint is None:
            return Dead(reason="endpoint_disabled" if made.error == "endpoint_disabled" else "endpoint_missing")
        return policy.follow_up(
            made.status,
            made.attempt,
            made.started_at_ms + made.duration_ms,
            endpoint.schedule_s,
            retry_after=retry_after,
            jitter=policy.jitter_of(task.event.id, task.endpoint_id, task.attempt, self._context.settings.jitter),
        )

    async def _park(self, task: Task, endpoint: Endpoint, refused: Refused) -> None:
        """Put it off to a delay topic with the same attempt number: no attempt is spent, and the record it came from is done."""
        context = self._context
        now_ms = context.clock.now_ms()
        if refused.why == "rate" and refused.until_ms is not None:
            until_ms, parked = refused.until_ms, task.parked
        else:
            settings, longest_ms = (
                context.settings,
                policy.parked_ms(context.settings.delays_s, endpoint.schedule_s, task.attempt, task.parked),
            )
            if refused.until_ms is not None:  # all that wait for this time come back spread over a while: the first of them is the probe
                spread_ms = _SPREAD * 1000 * min(settings.delays_s)
                wait_ms = min(refused.until_ms - now_ms + round(spread_ms * self._drawn(task, 1.0)), longest_ms)
            else:
                wait_ms = policy.put_off_ms(settings.delays_s, task.parked)
            until_ms, parked = now_ms + round(wait_ms * (1 + self._drawn(task, settings.jitter))), task.parked + 1
        put_off = RetryTask(
            v=SCHEMA_VERSION,
            organization=task.event.organization,
            mode=task.event.mode,
            event_id=task.event.id,
            endpoint_id=task.endpoint_id,
            attempt=task.attempt,
            not_before_ms=until_ms,
            hop=task.hop + 1,
            parked=parked,
            turn=refused.turn,
            round=task.round,
            cause=task.cause,
            history=list(task.history),
            event=msgspec.Raw(task.value),
        )
        await self._later(put_off, task)
        reach("delivery.after_park")
        PARKED.labels(refused.why).inc()

    async def _later(self, put_off: RetryTask, task: Task) -> None:
        """Where work goes that is put off: the delay topics."""
        await self._outbox.leg(put_off, task.event, task.source, task.headers)

    @staticmethod
    def _drawn(task: Task, most: float) -> float:
        return policy.jitter_of(task.event.id, task.endpoint_id, task.hop, most)

    async def _follow_up(self, task: Task, attempted: Attempted) -> None:
        following, event = attempted.next, task.event
        if isinstance(following, Retry):
            leg = Leg(event.id, task.endpoint_id, following.attempt, 0, task.round)
            if self._journal.has_leg(leg) or self._journal.has_attempt(leg.attempt_key):
                return
            await self._outbox.leg(policy.retry_task(attempted, following, task.history, task.value), event, task.source, task.headers)
        elif isinstance(following, Dead) and following.reason == "erased":
            return
        elif isinstance(following, Dead) and not self._journal.is_dead(dead := (event.id, task.endpoint_id, task.round)):
            if following.reason == "gone" and attempted.cause != "replay":
                await self._health.gone(event.type, attempted)
            letter = policy.dead_letter(attempted, following, task.history, task.value)
            told = operational.dead_letter(letter)
            if told is not None:  # first: made again after a crash it is the same event, and dedup drops it
                await self._outbox.send(EVENTS_INGESTED, codec.encode(told), told, ())
            report = await self._outbox.send(DELIVERIES_DEAD, codec.encode(letter), event, task.headers)
            self._journal.add_dead(DELIVERIES_DEAD, report.offset, dead, self._context.clock.now_ms(), task.source)
            DEAD_LETTERS.labels(following.reason).inc()


def _teaches(made: Attempted, admitted: Admitted) -> bool | None:
    """What an attempt tells the gate. A replay's failure opens no breaker: it may be of its own making. As a probe it must be heard."""
    if made.cause == "replay" and made.outcome == "failed" and admitted.permit == "attempt":
        return None
    return made.outcome == "delivered"
