"""Keys by the thousand that nobody was given: what they cost, and that they cost those nothing who have one (RELIABILITY 4.4, row 47)."""

from __future__ import annotations

import asyncio
from typing import Literal, cast

import pytest
from starlette.requests import Request

from access import key_cache, keys
from access.auth import Authenticator
from access.epoch import epoch_key
from runtime.postgres import Pool
from runtime.redis import RedisTick
from runtime.settings import AccessSettings, IngestSettings
from schemas.problems import ProblemError
from tests.unit.access.fakes import KEY, KEY_ID, PRINCIPAL, Clock, Control, Redis, row

LIMIT = 5
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
TEST_KEY = keys.generate("test", bytes([9]) * keys.RANDOM_BYTES)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    made = Control(monkeypatch)
    made.rows[keys.prefix(TEST_KEY)] = [row(TEST_KEY)._replace(mode="test")]
    return made


@pytest.fixture
def authenticator(control: Control, clock: Clock) -> Authenticator:
    made = Authenticator(IngestSettings(), clock, cast(Pool, control), AccessSettings(failed_keys_per_minute_max=LIMIT))
    made.tick = cast(RedisTick, Redis(made))
    return made


def made_up(number: int, mode: Literal["live", "test"] = "live") -> str:
    return f"zap_{mode}_{number:055d}"


async def status(authenticator: Authenticator, key: str, address: str | None = HERE) -> int:
    try:
        await authenticator.authenticate(key, address)
    except ProblemError as error:
        assert ("Retry-After" in error.headers) == (error.problem.status == 429)
        return error.problem.status
    return 200


async def test_a_hundred_thousand_made_up_keys_leave_every_memory_bounded_and_valid_keys_known(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    redis = cast(Redis, authenticator.tick)
    assert (await authenticator.authenticate(KEY)).mode == "live"
    assert (await authenticator.authenticate(TEST_KEY)).mode == "test"
    await authenticator.tick.touch()
    held = len(redis.data)
    for number in range(50_000):
        for mode in ("live", "test"):
            with pytest.raises(ProblemError):
                await authenticator.authenticate(made_up(number, mode), f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    valid, unknown, once_valid = authenticator._cache.sizes
    assert (valid, once_valid) == (2, 2)
    assert 0 < unknown <= key_cache.CACHED_MAX
    assert len(authenticator._failed) <= 10_000
    assert not authenticator._looking
    assert len(redis.data) == held
    asked = control.asked
    assert (await authenticator.authenticate(KEY)).mode == "live"
    assert (await authenticator.authenticate(TEST_KEY)).mode == "test"
    assert control.asked == asked


async def test_past_the_limit_an_address_is_refused_without_any_look_up_until_the_minute_is_over(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    redis = cast(Redis, authenticator.tick)
    assert [await status(authenticator, made_up(number)) for number in range(LIMIT + 1)] == [401] * LIMIT + [429]
    asked, trips = control.asked, redis.trips
    for key in (*(made_up(number) for number in range(100, 200)), made_up(0), "malformed", ""):
        assert await status(authenticator, key) == 429
    assert (control.asked, redis.trips) == (asked, trips)
    assert await status(authenticator, made_up(300), ELSEWHERE) == 401
    assert await status(authenticator, made_up(301), None) == 401
    clock.now_s += 60
    assert await status(authenticator, made_up(302)) == 401


async def test_malformed_expired_and_remembered_keys_count_as_failed_too(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    control.rows[keys.prefix(KEY)] = [row(KEY, expires_at_ms=clock.now_ms())]
    wrong = ["malformed", made_up(1), made_up(1), KEY, KEY]
    assert [await status(authenticator, key) for key in wrong] == [401] * LIMIT
    assert await status(authenticator, made_up(2)) == 429


async def test_a_key_that_was_valid_here_goes_on_working_from_an_address_that_is_refused(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    assert await status(authenticator, KEY) == 200
    for number in range(LIMIT + 1):
        await status(authenticator, made_up(number))
    assert await status(authenticator, KEY) == 200
    clock.now_s += 6  # the cache no longer answers for it
    assert await status(authenticator, KEY) == 200
    authenticator.on_epoch(b"7:somebody else's revoke")
    assert await status(authenticator, KEY) == 200
    assert await status(authenticator, TEST_KEY) == 429  # valid, and not known to be
    control.revoke()
    clock.now_s += 6
    authenticator.on_epoch(None)
    assert await status(authenticator, KEY) == 401
    assert await status(authenticator, KEY) == 429


async def test_valid_keys_that_come_and_go_leave_the_caches_bounded(
    authenticator: Authenticator, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "CACHED_MAX", 10)
    issued = [made_up(number) for number in range(35)]
    control.rows[keys.prefix(made_up(0))] = [row(key) for key in issued]
    assert [await status(authenticator, key) for key in issued] == [200] * 35
    assert max(authenticator._cache.sizes) <= 10


async def test_callers_of_a_route_are_counted_by_their_address(authenticator: Authenticator) -> None:
    def asking(key: str) -> Request:
        return Request({"type": "http", "headers": [(b"x-api-key", key.encode())], "client": (HERE, 1)})

    slugs = []
    for number in range(LIMIT + 1):
        with pytest.raises(ProblemError) as caught:
            await authenticator.request(asking(made_up(number)), "events:write")
        slugs.append(caught.value.problem.slug)
    assert slugs == ["invalid-api-key"] * LIMIT + ["quota-exceeded"]


async def test_keys_of_a_suspended_organization_are_403_also_from_the_caches_and_count_as_no_failure(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    control.rows[keys.prefix(KEY)] = [row(KEY)._replace(suspended=True)]
    for _ in range(LIMIT + 2):
        with pytest.raises(ProblemError) as caught:
            await authenticator.authenticate(KEY, HERE)
        assert (caught.value.problem.slug, caught.value.problem.status) == ("organization-suspended", 403)
    assert control.asked == 1
    clock.now_s += 6  # from Redis
    assert await status(authenticator, KEY) == 403
    assert control.asked == 1
    control.rows[keys.prefix(KEY)] = [row(KEY, expires_at_ms=clock.now_ms())._replace(suspended=True)]
    cast(Redis, authenticator.tick).data.clear()
    authenticator.on_epoch(None)
    assert await status(authenticator, KEY) == 401
    assert len(authenticator.last_used) == 0


async def test_a_resumed_organizations_keys_are_let_in_at_once(authenticator: Authenticator, control: Control) -> None:
    redis = cast(Redis, authenticator.tick)
    control.rows[keys.prefix(KEY)] = [row(KEY)._replace(suspended=True)]
    assert await status(authenticator, KEY) == 403
    control.rows[keys.prefix(KEY)] = [row(KEY)]
    redis.data[epoch_key()] = b"7:resumed"
    assert await status(authenticator, KEY) == 200


async def test_a_use_is_noted_wherever_the_key_was_found_and_a_failure_is_not(authenticator: Authenticator, clock: Clock) -> None:
    await status(authenticator, made_up(1))
    assert len(authenticator.last_used) == 0
    await status(authenticator, KEY)
    clock.now_s += 1
    authenticator.cached(KEY, HERE)
    assert authenticator.last_used._used_at_ms == {KEY_ID: clock.now_ms()}


async def test_many_wrong_keys_at_once_are_all_counted(authenticator: Authenticator) -> None:
    await asyncio.gather(*(status(authenticator, made_up(number)) for number in range(50)))
    assert await status(authenticator, made_up(99)) == 429
    assert (await authenticator.authenticate(KEY, ELSEWHERE)) == PRINCIPAL
