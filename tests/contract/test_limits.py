"""Quotas: the window in Redis and the one in the process against one plain model, and the limiter over a real Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.resources import files

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from access.auth import Principal
from access.limits import WINDOW_S, Limiter, Window, rate_headers, refused
from ingest.idempotency import Reservations, redis_key
from runtime.clock import SYSTEM
from runtime.redis import RedisTick
from runtime.settings import RedisSettings, Settings
from schemas import ids
from tests.contract.quota_model import BUCKET_MS, Model

SCRIPT = (files("access") / "lua" / "take.lua").read_bytes()
#: (milliseconds that pass, events asked for)
HISTORIES = st.lists(
    st.tuples(st.one_of(st.integers(0, 1_500), st.sampled_from([0, 999, 1_000, 59_000, 60_000, 61_000, 200_000])), st.integers(1, 9)),
    min_size=1,
    max_size=40,
)
Take = Callable[[int, int, int], tuple[int, int, int]]


@pytest.fixture(scope="module")
def direct(settings: Settings) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.redis.url.get_secret_value())
    yield client
    client.close()


def in_redis(client: redis.Redis, span: int) -> Take:
    name, script = f"test:quota:{os.urandom(6).hex()}", client.register_script(SCRIPT)

    def take(now_ms: int, limit: int, asked: int) -> tuple[int, int, int]:
        granted, left, reset_ms = script(keys=[name], args=[limit, asked, span, BUCKET_MS, now_ms])
        assert client.hlen(name) <= span + 4
        assert 0 < client.pttl(name) <= (span + 2) * BUCKET_MS
        return granted, left, reset_ms

    return take


@pytest.mark.parametrize("where", ["redis", "process"])
@given(history=HISTORIES, limit=st.integers(1, 12), span=st.sampled_from([1, 3, WINDOW_S]))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_window_holds_more_than_the_limit_and_nobody_is_refused_who_fits(
    where: str, history: list[tuple[int, int]], limit: int, span: int, direct: redis.Redis
) -> None:
    take = in_redis(direct, span) if where == "redis" else Window(span, BUCKET_MS).take
    model, now_ms = Model(span), 1_790_000_000_000
    for passed_ms, asked in history:
        now_ms += passed_ms
        expected = model.take(now_ms, limit, asked)
        assert take(now_ms, limit, asked) == expected
        if not expected[0]:
            later_ms = now_ms + expected[2]
            assert model.copy().take(later_ms, limit, 1)[0] == 1, "whoever waits for reset_s is let in"
    assert model.most_in_any_window() <= limit


def test_a_clock_set_back_grants_nothing_twice_and_does_not_stop_a_quota_for_good(direct: redis.Redis) -> None:
    take, now_ms = in_redis(direct, 3), 1_790_000_000_000
    assert take(now_ms, 5, 5)[0] == 5
    assert take(now_ms - 2_000, 5, 1)[0] == 0
    assert take(now_ms - 3_600_000, 5, 1)[0] == 1


def test_a_lowered_limit_holds_at_once(direct: redis.Redis) -> None:
    take, now_ms = in_redis(direct, 3), 1_790_000_000_000
    assert take(now_ms, 5, 5)[0] == 5
    assert take(now_ms, 3, 1)[:2] == (0, 0)
    assert take(now_ms, 6, 9)[:2] == (1, 0)


# -- the limiter


class Trips(RedisTick):
    """Counts round trips, by the key that each of them reads."""

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings, SYSTEM, watch="test:epoch", on_watched=self._on_trip)
        self.count = 0

    def _on_trip(self, _: bytes | None) -> None:
        self.count += 1


@pytest.fixture
async def tick(settings: Settings) -> AsyncIterator[Trips]:
    made = Trips(settings.redis.model_copy(update={"timeout_s": 2.0}))
    yield made
    await made.close()


def principal(limit: int | None = 10, plan: str = "free", mode: str = "live", organization: str | None = None) -> Principal:
    made = ids.organization_id(1, os.urandom(10))
    return Principal("key_1", organization or made, mode, (), plan, limit, None)  # type: ignore[arg-type]


async def test_what_a_tick_takes_is_one_script_call_in_one_round_trip_with_the_reservations(tick: Trips) -> None:
    limiter, one, other = Limiter(tick, SYSTEM), principal(), principal()
    reservations = Reservations(tick, lease_ms=1_000, window_ms=1_000)
    await asyncio.gather(limiter.take(principal(), 1), reservations.reserve(redis_key(one.organization, "live", "a"), EVENT, "f", "o"))
    tick.count = 0
    calls = [asyncio.ensure_future(limiter.take(one, 3)) for _ in range(5)]
    foreign = asyncio.ensure_future(limiter.take(other, 1))
    await reservations.reserve(redis_key(one.organization, "live", "b"), EVENT, "f", "o")
    answers = await asyncio.gather(*calls)
    assert [answer.granted for answer in answers] == [3, 3, 3, 1, 0]
    assert {(answer.limit, answer.remaining) for answer in answers} == {(10, 0)}
    assert (await foreign).granted == 1
    assert tick.count == 1


EVENT = ids.event_id(1, bytes(10))


async def test_a_quota_that_is_used_up_is_refused_without_asking_until_it_grows(tick: Trips) -> None:
    now_ms = 1_790_000_000_500
    limiter = Limiter(tick, SYSTEM, span=1, bucket_ms=300, now_ms=lambda: now_ms)
    one = principal(2)
    assert (await limiter.take(one, 5)).granted == 2
    before = tick.count
    answer = await limiter.take(one, 1)
    assert (answer.granted, answer.remaining, answer.reset_s, tick.count) == (0, 0, 1, before)
    raised = one._replace(rate_limit_per_minute=3)
    assert (await limiter.take(raised, 5)).granted == 1, "a raised limit holds at once"
    now_ms += 10_000
    async with asyncio.timeout(5):
        while not (await limiter.take(one, 1)).granted:
            await asyncio.sleep(0.01)


async def test_live_and_test_have_quotas_of_their_own(tick: Trips) -> None:
    limiter, live = Limiter(tick, SYSTEM), principal(1)
    assert (await limiter.take(live, 1)).granted == 1
    assert (await limiter.take(live, 1)).granted == 0
    assert (await limiter.take(live._replace(mode="test"), 1)).granted == 1


@pytest.mark.parametrize(("plan", "own", "limit"), [("free", None, 100), ("enterprise", None, 100_000), ("free", 7, 7)])
async def test_the_limit_is_the_plans_or_the_organizations_own(plan: str, own: int | None, limit: int, tick: Trips) -> None:
    answer = await Limiter(tick, SYSTEM).take(principal(own, plan), 1)
    assert (answer.limit, answer.remaining) == (limit, limit - 1)
    assert rate_headers(answer) == {
        "RateLimit-Policy": f'"events";q={limit};w=60',
        "RateLimit": f'"events";r={limit - 1};t={answer.reset_s}',
    }
    problem = refused(answer)
    assert (problem.problem.status, problem.headers["Retry-After"]) == (429, str(answer.reset_s))


async def test_without_redis_the_process_goes_on_from_what_it_granted_with_it(settings: Settings, tick: Trips) -> None:
    limiter, one = Limiter(tick, SYSTEM), principal(5)
    assert (await limiter.take(one, 3)).granted == 3
    await tick.close()  # from here on every round trip is refused
    answers = [(await limiter.take(one, 1)) for _ in range(4)]
    assert [answer.granted for answer in answers] == [1, 1, 0, 0]
    assert answers[-1].reset_s >= 1
    assert (await limiter.take(principal(5), 9)).granted == 5


async def test_a_redis_that_cannot_be_reached_costs_one_time_out_and_no_answer() -> None:
    away = RedisTick(
        RedisSettings(url="redis://127.0.0.1:1/0", timeout_s=0.2),
        SYSTEM, watch="test:epoch", on_watched=lambda _: None,
    )  # fmt: skip
    limiter, one = Limiter(away, SYSTEM), principal(3)
    assert [answer.granted for answer in await asyncio.gather(*(limiter.take(one, 2) for _ in range(3)))] == [2, 1, 0]
    await away.close()
