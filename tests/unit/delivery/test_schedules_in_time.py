"""Schedules and hops against a plain model, under a clock that only moves when everybody waits for it.

What runs is the real partition worker with gates, delay lanes and journal, over a log in memory. The model knows the schedule, what was
answered when, and nothing of delay topics: attempt n + 1 begins a pause after attempt n has ended, never earlier, later by no more than the
jitter and the smallest delay; the chain ends with the first success, with 410, or when the pauses are used up.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery import attempt
from delivery.context import Context
from delivery.endpoints import Endpoint
from delivery.fifo_places import Found
from delivery.journal import Journal
from delivery.lanes import Lane
from delivery.partition import PartitionWorker
from delivery.watermark import Watermark
from runtime.lifecycle import StallGuard
from runtime.settings import DeliverySettings, Settings
from schemas import codec, ids
from schemas.deliveries import Attempted, RetryTask
from schemas.ids import EndpointId
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, EVENTS_ACCEPTED, retry_topic
from tests.unit.delivery.test_journal_machine import ORGANIZATION, Clock, DyingBus, Log, accept

JITTER = 0.1
#: Milliseconds that rounding and taking turns in the loop may cost.
SLACK_MS = 5
IDLE_TURNS = 20


class Answer(NamedTuple):
    status: int
    takes_s: float
    retry_after_s: int | None


class Plan(NamedTuple):
    """One endpoint: its schedule, and what it answers, in order; then 204."""

    schedule_s: tuple[float, ...]
    answers: tuple[Answer, ...]

    def answer(self, number: int) -> Answer:
        return self.answers[number - 1] if number <= len(self.answers) else Answer(204, 0.0, None)


class Time:
    """Sleepers, woken in order when nothing else moves."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self.pause = asyncio.sleep  # the real one

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await self.pause(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wake_ms = self._log.now_ms + max(1, -int(-seconds * 1000 // 1))
        heapq.heappush(self._sleepers, (wake_ms, next(self._numbers), waiter))
        await waiter

    def wake(self) -> bool:
        """Time goes on to the next sleeper; False where there is none."""
        while self._sleepers:
            wake_ms, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                self._log.now_ms = max(self._log.now_ms, wake_ms)
                waiter.set_result(None)
                return True
        return False


class Known:
    def __init__(self, plans: dict[EndpointId, Plan]) -> None:
        self._plans = plans

    async def of(self, owners: Any) -> dict[tuple[str, str], list[Endpoint]]:
        return {owner: [await self.get(one) for one in self._plans] for owner in owners}

    async def get(self, endpoint_id: EndpointId, **_: Any) -> Endpoint:
        schedule_s = self._plans[endpoint_id].schedule_s
        return Endpoint(endpoint_id, ORGANIZATION, "live", f"http://{endpoint_id}", None, (b"x" * 24,), schedule_s=schedule_s)

    async def disable_gone(self, _: Any) -> bool:
        return True

    async def note_failing(self, *_: Any) -> None: ...

    async def note_recovered(self, _: Any) -> None: ...


async def deliver(log: Log, plans: dict[EndpointId, Plan], delays_s: Sequence[float], patch: pytest.MonkeyPatch) -> None:
    """Until nothing is left to do."""
    time = Time(log)
    asked: dict[str, int] = {}
    under_way = 0

    async def post(url: str, *_: Any) -> attempt.Result:
        nonlocal under_way
        asked[url] = asked.get(url, 0) + 1
        answer = plans[EndpointId(url.removeprefix("http://"))].answer(asked[url])
        under_way += 1
        await time.sleep(answer.takes_s)
        under_way -= 1
        error = None if answer.status == 204 else "status"
        return attempt.Result(answer.status, error, b"", None if answer.retry_after_s is None else str(answer.retry_after_s))

    patch.setattr("delivery.partition.asyncio.sleep", time.sleep)
    never_open = {"breaker_failures": 1_000_000, "breaker_attempts_min": 1_000_000}
    made = Settings(delivery=DeliverySettings.model_validate({"delays_s": delays_s, "jitter": JITTER, "slow_after_s": 1e6, **never_open}))
    sources = [EVENTS_ACCEPTED, *map(retry_topic, delays_s)]
    bus, sender, known, guard = DyingBus(log, 1 << 60, after=True), SimpleNamespace(post=post), Known(plans), StallGuard(1e9)
    topic_delays = dict(zip(sources[1:], delays_s, strict=True))
    context = Context(made, Clock(log), bus, known, sender, guard, topic_delays, "w", None, None, None)  # type: ignore[arg-type]
    lanes = {
        topic: Lane(topic, 0, Watermark(0), 1_000, bytes_in_flight_max=1 << 30, pause=lambda: None, resume=lambda: None)
        for topic in sources
    }
    worker = PartitionWorker(context, 0, lanes, Journal(600_000), dict.fromkeys(sources, 0), Found())
    worker.start()
    given_to = dict.fromkeys(sources, 0)
    idle = 0
    while True:
        before = sum(map(len, log.topics.values()))
        for topic, lane in lanes.items():
            if fresh := log.records(topic)[given_to[topic] :]:
                lane.add(fresh)
                given_to[topic] += len(fresh)
        await time.pause(0)
        idle = 0 if sum(map(len, log.topics.values())) != before else idle + 1
        if idle < IDLE_TURNS:
            continue
        done = not under_way and all(lane.watermark.next_offset == len(log.records(topic)) for topic, lane in lanes.items())
        if done or not time.wake():
            break
        idle = 0
    await worker.stop(0.0)
    patch.undo()
    assert done, "something waits for ever"


DELAYS_S = [(0.5, 2.0), (1.0,), (5.0, 30.0, 120.0, 480.0, 1_800.0, 3_600.0), (0.3, 0.7, 11.0)]
answers = st.builds(
    Answer,
    st.sampled_from([204, 500, 500, 500, 301, 429, 410]),
    st.sampled_from([0.0, 0.001, 0.5, 29.9]),
    st.none() | st.integers(0, 200_000),
)


def plans_for(delays_s: tuple[float, ...]) -> st.SearchStrategy[tuple[tuple[float, ...], list[Plan]]]:
    """Pauses from less than the smallest delay to many times the largest."""
    pauses = st.one_of(st.floats(0.001, 2 * min(delays_s)), st.floats(0.001, 12 * max(delays_s)), st.sampled_from(delays_s))
    plan = st.builds(Plan, st.lists(pauses, min_size=1, max_size=5).map(tuple), st.lists(answers, max_size=7).map(tuple))
    return st.tuples(st.just(delays_s), st.lists(plan, min_size=1, max_size=3))


@given(made=st.sampled_from(DELAYS_S).flatmap(plans_for))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_attempts_begin_when_the_schedule_says_and_the_chain_ends_as_it_says(
    made: tuple[tuple[float, ...], list[Plan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays_s, endpoints = made
    log = Log()
    event = accept(log, 1)
    plans = {ids.endpoint_id(number, bytes(10)): one for number, one in enumerate(endpoints)}
    asyncio.run(deliver(log, plans, delays_s, monkeypatch))

    entries = [codec.journal.decode(record.value) for record in log.records(DELIVERIES_ATTEMPTS)]
    dead = {
        (one.event_id, one.endpoint_id): one.reason for one in (codec.dead_letter.decode(r.value) for r in log.records(DELIVERIES_DEAD))
    }
    smallest_ms = min(delays_s) * 1000
    for endpoint, one in plans.items():
        attempts = [entry for entry in entries if isinstance(entry, Attempted) and entry.endpoint_id == endpoint]
        expected, reason = ends(one)
        assert [(entry.attempt, entry.status) for entry in attempts] == list(enumerate(expected, 1))
        assert dead.get((event, endpoint)) == reason
        for entry, following in pairwise(attempts):
            answer, pause_ms = one.answer(entry.attempt), one.schedule_s[entry.attempt - 1] * 1000
            ended_ms = entry.started_at_ms + entry.duration_ms
            asked_ms = min((answer.retry_after_s or 0) * 1000, 2 * pause_ms)
            waited_ms = following.started_at_ms - ended_ms
            assert waited_ms >= max(pause_ms, asked_ms) - 1, "early"
            assert waited_ms <= min(max(pause_ms, asked_ms) + JITTER * pause_ms, 2 * pause_ms) + smallest_ms + SLACK_MS, "late"
    for delay_s in delays_s:
        stays(log, delay_s, delays_s)


def ends(one: Plan) -> tuple[list[int], str | None]:
    """The statuses of all attempts there are, and the reason of the dead letter."""
    statuses: list[int] = []
    for number in range(1, len(one.schedule_s) + 2):
        statuses.append(one.answer(number).status)
        if statuses[-1] == 204:
            return statuses, None
        if statuses[-1] == 410:
            return statuses, "gone"
    return statuses, "exhausted"


def stays(log: Log, delay_s: float, delays_s: Sequence[float]) -> None:
    """No record stays on a delay topic for longer than the topic's delay: the next leg of its attempt is written by then."""
    for record in log.records(retry_topic(delay_s)):
        task = codec.retry_task.decode(record.value)
        later = [one for other in delays_s for one in log.records(retry_topic(other)) if _is_next(task, codec.retry_task.decode(one.value))]
        for one in later:
            assert one.timestamp_ms - record.timestamp_ms <= delay_s * 1000 + SLACK_MS


def _is_next(task: RetryTask, other: RetryTask) -> bool:
    return (other.endpoint_id, other.attempt, other.hop) == (task.endpoint_id, task.attempt, task.hop + 1)
