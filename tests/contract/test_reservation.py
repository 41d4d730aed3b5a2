"""Reservations and the tick on a real Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from ingest.idempotency import Confirmed, Reservation, Reservations, Wanted, redis_key
from runtime.clock import SYSTEM
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import RedisSettings, Settings
from schemas import ids

ORGANIZATION = ids.organization_id(1, bytes(10))
ONE, TWO = ids.event_id(1, bytes(10)), ids.event_id(2, bytes(10))
WATCHED = "test:epoch"
LEASE_MS = 150
WINDOW_MS = 60_000


@pytest.fixture
def direct(settings: Settings) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.redis.url.get_secret_value())
    yield client
    client.close()


@pytest.fixture
async def tick(settings: Settings) -> AsyncIterator[RedisTick]:
    seen: list[bytes | None] = []
    made = RedisTick(settings.redis.model_copy(update={"timeout_s": 2.0}), SYSTEM, watch=WATCHED, on_watched=seen.append)
    made.seen = seen  # type: ignore[attr-defined]
    yield made
    await made.close()


@pytest.fixture
def reservations(tick: RedisTick) -> Reservations:
    return Reservations(tick, lease_ms=LEASE_MS, window_ms=WINDOW_MS)


@pytest.fixture
def key() -> str:
    return redis_key(ORGANIZATION, "live", f"k:{os.urandom(6).hex()}")


async def test_the_first_reserves_and_the_next_waits_then_is_told_the_id(reservations: Reservations, key: str) -> None:
    assert (await reservations.reserve(key, ONE, "f", "a")).outcome == "reserved"
    waiting = await reservations.reserve(key, TWO, "f", "b")
    assert (waiting.outcome, waiting.event_id) == ("pending", ONE)
    assert 0 < waiting.remaining_ms <= LEASE_MS
    await _confirm(reservations, key, SYSTEM.now_ms())
    assert tuple(await reservations.reserve(key, TWO, "f", "b"))[:2] == ("duplicate", ONE)


async def test_another_event_under_the_key_is_a_conflict_whatever_the_state(reservations: Reservations, key: str) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    assert tuple(await reservations.reserve(key, TWO, "other", "b"))[:2] == ("conflict", ONE)
    await _confirm(reservations, key, SYSTEM.now_ms())
    assert (await reservations.reserve(key, TWO, "other", "b")).outcome == "conflict"


async def test_a_lapsed_lease_is_taken_over_under_the_same_event_id(reservations: Reservations, key: str) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    held = await _after_the_lease(reservations, key, TWO)
    assert tuple(held)[:2] == ("takeover", ONE)
    assert (await reservations.reserve(key, TWO, "f", "c")).outcome == "pending"


async def test_what_was_certainly_not_appended_frees_the_key_for_its_first_owner_only(reservations: Reservations, key: str) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    await reservations.release(key, ONE, "stranger")
    assert (await reservations.reserve(key, TWO, "f", "b")).outcome == "pending"
    await reservations.release(key, ONE, "a")
    assert (await reservations.reserve(key, TWO, "f", "b")).outcome == "reserved"


async def test_whoever_took_over_an_id_cannot_free_it_because_an_earlier_owner_may_have_appended(
    reservations: Reservations, key: str
) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    assert (await _after_the_lease(reservations, key, TWO)).outcome == "takeover"
    await reservations.release(key, ONE, "late")
    assert tuple(await reservations.reserve(key, TWO, "f", "c"))[:2] == ("takeover", ONE)


async def test_a_late_confirmation_of_a_former_owner_holds(reservations: Reservations, key: str) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    await _after_the_lease(reservations, key, TWO)
    await _confirm(reservations, key, SYSTEM.now_ms())
    assert (await reservations.reserve(key, TWO, "f", "c")).outcome == "duplicate"


async def test_the_window_in_redis_ends_after_the_logs(reservations: Reservations, key: str, direct: redis.Redis) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    appended_at_ms = SYSTEM.now_ms()
    await _confirm(reservations, key, appended_at_ms)
    remaining_ms = direct.pttl(key)
    assert isinstance(remaining_ms, int)
    assert SYSTEM.now_ms() + remaining_ms > appended_at_ms + WINDOW_MS


async def test_a_hundred_at_once_reserve_exactly_once(reservations: Reservations, key: str) -> None:
    held = await asyncio.gather(*(reservations.reserve(key, ids.event_id(n, bytes(10)), "f", str(n)) for n in range(100)))
    assert [one.outcome for one in held].count("reserved") == 1
    assert len({one.event_id for one in held}) == 1


async def test_many_keys_of_an_organization_are_reserved_and_confirmed_each_for_itself(reservations: Reservations) -> None:
    keys = [redis_key(ORGANIZATION, "live", f"k:{os.urandom(6).hex()}") for _ in range(230)]
    await reservations.reserve(keys[7], ONE, "f", "somebody")
    await reservations.reserve(keys[150], ONE, "another", "somebody")
    wanted = [Wanted(key, ids.event_id(n, bytes(10)), "f", f"o{n}") for n, key in enumerate(keys)]
    held = await reservations.reserve_all(wanted)
    outcomes = [None if one is None else one.outcome for one in held]
    assert (outcomes.pop(150), outcomes.pop(7)) == ("conflict", "pending")
    assert set(outcomes) == {"reserved"}
    now_ms = SYSTEM.now_ms()
    assert await reservations.confirm_all([Confirmed(one.key, one.event_id, "f", now_ms) for one in wanted]) == 0
    again = [None if one is None else tuple(one)[:2] for one in await reservations.reserve_all(wanted)]
    assert again[7] == ("pending", ONE), "what another event holds is not confirmed"
    assert [one for n, one in enumerate(again) if n not in (7, 150)] == [
        ("duplicate", one.event_id) for n, one in enumerate(wanted) if n not in (7, 150)
    ]


async def test_without_redis_many_keys_have_no_answer_and_nobody_was_told() -> None:
    without, tick = _without_redis()
    assert await without.reserve_all([Wanted(str(n), ONE, "f", "a") for n in range(150)]) == [None] * 150
    assert await without.confirm_all([Confirmed(str(n), ONE, "f", 1) for n in range(150)]) == 150
    await tick.close()


async def test_who_tells_of_an_append_does_not_wait_and_is_first_with_what_it_asks_next(reservations: Reservations, key: str) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    told: list[bool] = []
    reservations.confirm(key, ONE, "f", SYSTEM.now_ms(), told.append)
    asked = reservations.reserve(key, TWO, "f", "b")
    assert told == []
    assert tuple(await asked)[:2] == ("duplicate", ONE)
    assert told == [True]


async def test_without_redis_who_tells_of_an_append_hears_that_nobody_was_told() -> None:
    without, tick = _without_redis()
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    without.confirm("k", ONE, "f", 1, told.set_result)
    assert not await told
    await tick.close()


def _without_redis() -> tuple[Reservations, RedisTick]:
    nowhere = RedisSettings.model_validate({"url": "redis://127.0.0.1:1/0", "timeout_s": 0.2, "retry_after_s": 30})
    tick = RedisTick(nowhere, SYSTEM, watch=WATCHED, on_watched=lambda _: None)
    return Reservations(tick, lease_ms=LEASE_MS, window_ms=WINDOW_MS), tick


async def _confirm(reservations: Reservations, key: str, appended_at_ms: int) -> None:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    reservations.confirm(key, ONE, "f", appended_at_ms, told.set_result)
    assert await told


async def _after_the_lease(reservations: Reservations, key: str, event_id: ids.EventId) -> Reservation:
    while True:
        held = await reservations.reserve(key, event_id, "f", "late")
        if held.outcome != "pending":
            return held
        await asyncio.sleep(held.remaining_ms / 1000)


async def test_all_requests_of_a_tick_share_one_round_trip_that_reads_the_watched_key_first(tick: RedisTick, direct: redis.Redis) -> None:
    direct.set(WATCHED, "7")
    direct.config_resetstat()
    answers = await asyncio.gather(*(tick.execute("SET", f"test:{n}", n, "EX", 10) for n in range(50)), tick.touch())
    assert answers[:-1] == [b"OK"] * 50 or answers[:-1] == [True] * 50
    assert tick.seen == [b"7"]  # type: ignore[attr-defined]


async def test_scripts_are_loaded_again_after_redis_forgot_them(reservations: Reservations, key: str, direct: redis.Redis) -> None:
    await reservations.reserve(key, ONE, "f", "a")
    direct.script_flush()
    assert (await reservations.reserve(key, TWO, "f", "b")).outcome == "pending"


async def test_without_redis_every_caller_is_told_at_once_and_the_breaker_holds() -> None:
    nowhere = RedisSettings.model_validate({"url": "redis://127.0.0.1:1/0", "timeout_s": 0.2, "retry_after_s": 30})
    tick = RedisTick(nowhere, SYSTEM, watch=WATCHED, on_watched=lambda _: None)
    results = await asyncio.gather(*(tick.execute("PING") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, RedisUnavailable) for result in results)
    assert not tick.available
    with pytest.raises(RedisUnavailable):
        await tick.execute("PING")
    assert tick.failures == 1
    await tick.close()
