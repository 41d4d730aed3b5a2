from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import psycopg
import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from access import keys
from access.auth import Authenticator, Principal, key_of
from access.epoch import epoch_key
from runtime.postgres import Pool
from runtime.redis import RedisTick
from runtime.settings import IngestSettings
from schemas.problems import ProblemError
from tests.unit.access.fakes import KEY, OTHER, PRINCIPAL, Clock, Control, Redis, row


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    return Control(monkeypatch)


@pytest.fixture
def authenticator(control: Control, clock: Clock) -> Authenticator:
    made = Authenticator(IngestSettings(), clock, cast(Pool, control))
    made.tick = cast(RedisTick, Redis(made))
    return made


@pytest.fixture
def redis(authenticator: Authenticator) -> Redis:
    return cast(Redis, authenticator.tick)


async def refused(authenticator: Authenticator, key: str = KEY) -> str:
    with pytest.raises(ProblemError) as caught:
        await authenticator.authenticate(key)
    return caught.value.problem.slug


def asking(key: str) -> Request:
    return Request({"type": "http", "headers": [(b"x-api-key", key.encode())]})


def tell_epoch(redis: Redis, value: str) -> None:
    redis.data[epoch_key()] = value.encode()


async def test_a_key_is_looked_up_once_then_known_to_the_process_and_to_redis(
    authenticator: Authenticator, control: Control, clock: Clock
) -> None:
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    assert authenticator.cached(KEY) == PRINCIPAL
    clock.now_s += 5.0
    assert authenticator.cached(KEY) is None
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    assert control.asked == 1


@pytest.mark.parametrize("text", ["", "x", "zap_live_" + "a" * 54, "zap_live_" + "a" * 56, "zap_prod_" + "a" * 55, KEY + "\n", "é" * 64])
async def test_what_cannot_be_a_key_is_refused_without_a_look_up(
    text: str, authenticator: Authenticator, control: Control, redis: Redis
) -> None:
    assert await refused(authenticator, text) == "invalid-api-key"
    assert (control.asked, redis.trips) == (0, 0)


async def test_unknown_revoked_and_expired_keys_are_refused_alike(authenticator: Authenticator, control: Control, clock: Clock) -> None:
    answers = []
    expired, revoked = row(KEY, expires_at_ms=clock.now_ms()), row(KEY, revoked=True)
    for rows in ([], [revoked], [expired], [row(OTHER)]):
        control.rows = {keys.prefix(KEY): rows}
        clock.now_s += 10
        with pytest.raises(ProblemError) as caught:
            await authenticator.authenticate(KEY)
        answers.append((caught.value.problem, caught.value.detail, dict(caught.value.headers)))
    assert all(answer == answers[0] for answer in answers)


async def test_an_unknown_key_is_not_asked_for_again_within_a_second(authenticator: Authenticator, control: Control, clock: Clock) -> None:
    for _ in range(20):
        assert await refused(authenticator, OTHER) == "invalid-api-key"
    assert control.asked == 1
    clock.now_s += 1.0
    control.rows = {keys.prefix(OTHER): [row(OTHER)]}
    assert await authenticator.authenticate(OTHER) == PRINCIPAL


async def test_a_key_that_expires_while_cached_is_refused(authenticator: Authenticator, control: Control, clock: Clock) -> None:
    control.rows = {keys.prefix(KEY): [row(KEY, expires_at_ms=clock.now_ms() + 2_000)]}
    await authenticator.authenticate(KEY)
    clock.now_s += 2.0
    assert await refused(authenticator) == "invalid-api-key"


async def test_a_round_trip_that_shows_another_epoch_empties_the_process_cache(authenticator: Authenticator, redis: Redis) -> None:
    await authenticator.authenticate(KEY)
    before = authenticator.changes
    tell_epoch(redis, "1:revoked")
    await authenticator.tick.touch()
    assert authenticator.cached(KEY) is None
    assert authenticator.changes != before


async def test_a_missing_epoch_empties_the_process_cache_and_is_set_again(authenticator: Authenticator, redis: Redis) -> None:
    await authenticator.authenticate(KEY)
    redis.data.clear()
    await authenticator.tick.touch()
    assert authenticator.cached(KEY) is None
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    assert redis.data[epoch_key()].startswith(b"0:")


async def test_an_overtaken_round_trip_that_shows_the_old_epoch_again_counts_as_a_change(authenticator: Authenticator) -> None:
    authenticator.on_epoch(b"1:a")
    before = authenticator.changes
    authenticator.on_epoch(b"2:b")
    authenticator.on_epoch(b"1:a")
    assert authenticator.changes != before


async def test_a_look_up_that_read_postgres_before_a_revoke_neither_answers_nor_fills_a_cache_anyone_looks_into(
    authenticator: Authenticator, control: Control, redis: Redis, clock: Clock
) -> None:
    control.gate = asyncio.Event()
    asked = asyncio.create_task(authenticator.authenticate(KEY))
    while not control.asked:
        await asyncio.sleep(0)
    control.revoke()
    tell_epoch(redis, "1:revoked")
    await authenticator.tick.touch()
    control.gate.set()
    with pytest.raises(ProblemError):
        await asked
    clock.now_s += 10
    assert await refused(authenticator) == "invalid-api-key"


async def test_many_requests_after_an_empty_restart_of_redis_make_one_look_up(
    authenticator: Authenticator, control: Control, redis: Redis
) -> None:
    await authenticator.authenticate(KEY)
    redis.data.clear()
    authenticator.on_epoch(None)
    control.asked = 0
    assert await asyncio.gather(*(authenticator.authenticate(KEY) for _ in range(500))) == [PRINCIPAL] * 500
    assert control.asked == 1


async def test_a_caller_that_goes_away_does_not_end_the_look_up_others_wait_for(authenticator: Authenticator, control: Control) -> None:
    control.gate = asyncio.Event()
    first, second = (asyncio.create_task(authenticator.authenticate(KEY)) for _ in range(2))
    while not control.asked:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    control.gate.set()
    assert await second == PRINCIPAL


async def test_a_flood_of_made_up_keys_does_not_drive_out_a_valid_one(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("access.key_cache.CACHED_MAX", 10)
    await authenticator.authenticate(KEY)
    for number in range(30):
        await refused(authenticator, f"zap_live_{number:055d}")
    assert authenticator.cached(KEY) == PRINCIPAL


async def test_keys_that_wait_for_a_stopped_postgres_are_bounded(
    authenticator: Authenticator, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("access.auth._LOOKING_MAX", 10)
    control.gate = asyncio.Event()
    waiting = [asyncio.create_task(authenticator.authenticate(f"zap_live_{number:055d}")) for number in range(10)]
    await asyncio.sleep(0)
    assert await refused(authenticator) == "unavailable"
    control.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await authenticator.authenticate(KEY) == PRINCIPAL


async def test_without_redis_postgres_answers(authenticator: Authenticator, redis: Redis) -> None:
    redis.up = False
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    assert await authenticator.request(asking(KEY), "events:write") == PRINCIPAL


async def test_without_either_only_a_key_in_the_process_cache_is_known_and_for_five_seconds_at_most(
    authenticator: Authenticator, control: Control, redis: Redis, clock: Clock
) -> None:
    await authenticator.authenticate(KEY)
    redis.up, control.error = False, psycopg.OperationalError("down")
    clock.now_s += 4.9
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    clock.now_s += 0.1
    assert await refused(authenticator) == "unavailable"


async def test_after_an_outage_redis_is_trusted_only_under_a_new_epoch(
    authenticator: Authenticator, control: Control, redis: Redis, clock: Clock
) -> None:
    await authenticator.authenticate(KEY)
    before = redis.data[epoch_key()]
    redis.up = False
    control.revoke()
    clock.now_s += 6
    assert await refused(authenticator) == "invalid-api-key"
    redis.up = True  # with everything it held before
    clock.now_s += 6
    assert await refused(authenticator) == "invalid-api-key"
    assert redis.data[epoch_key()] not in (before, b"")


async def test_after_an_outage_the_epoch_is_new_even_if_no_revoke_is_known(authenticator: Authenticator, redis: Redis) -> None:
    await authenticator.authenticate(KEY)
    before = redis.data[epoch_key()]
    redis.failures += 1
    await authenticator.renew_epoch()
    assert redis.data[epoch_key()] != before
    assert authenticator.cached(KEY) is None


async def test_many_keys_after_an_empty_restart_of_redis_share_one_renewal_of_the_epoch(
    authenticator: Authenticator, control: Control
) -> None:
    await asyncio.gather(*(authenticator.authenticate(f"zap_live_{number:055d}") for number in range(100)), return_exceptions=True)
    assert control.versions_asked == 1


async def test_a_revoke_that_redis_was_not_told_of_is_brought_there(authenticator: Authenticator, control: Control, redis: Redis) -> None:
    await authenticator.authenticate(KEY)
    control.revoke()
    await authenticator.renew_epoch()
    assert redis.data[epoch_key()].startswith(b"1:")
    assert await refused(authenticator) == "invalid-api-key"


async def test_an_epoch_that_is_current_is_left_alone(authenticator: Authenticator, redis: Redis) -> None:
    await authenticator.authenticate(KEY)
    before = redis.data[epoch_key()]
    await authenticator.renew_epoch()
    assert redis.data[epoch_key()] == before


async def test_a_redis_that_takes_no_epoch_leaves_postgres_to_answer(authenticator: Authenticator, redis: Redis, control: Control) -> None:
    redis.read_only = True
    for _ in range(3):
        assert await authenticator.authenticate(KEY) == PRINCIPAL
        await authenticator.tick.touch()
    control.revoke()
    assert await refused(authenticator) == "invalid-api-key"


@pytest.mark.parametrize("value", [b"nonsense", b"", b"\xff", b"9" * 5_000 + b":x"])
async def test_an_epoch_that_is_none_of_ours_is_replaced(value: bytes, authenticator: Authenticator, redis: Redis) -> None:
    redis.data[epoch_key()] = value
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    await authenticator.renew_epoch()
    assert redis.data[epoch_key()].startswith(b"0:")


async def test_an_entry_of_another_version_of_the_program_is_looked_up_and_written_again(
    authenticator: Authenticator, redis: Redis, clock: Clock, control: Control
) -> None:
    await authenticator.authenticate(KEY)
    await authenticator.tick.touch()
    entry = next(name for name in redis.data if name.endswith(keys.digest(KEY).hex()))
    redis.data[entry] = b'["of before"]'
    clock.now_s += 6
    assert await authenticator.authenticate(KEY) == PRINCIPAL
    await authenticator.tick.touch()
    assert msgspec.json.decode(redis.data[entry], type=Principal) == PRINCIPAL
    assert control.asked == 2


async def test_routes_refuse_a_revoked_key_that_the_process_still_caches(
    authenticator: Authenticator, control: Control, redis: Redis
) -> None:
    assert await authenticator.request(asking(KEY), "events:write") == PRINCIPAL
    control.revoke()
    tell_epoch(redis, "1:revoked")
    with pytest.raises(ProblemError) as caught:
        await authenticator.request(asking(KEY), "events:write")
    assert caught.value.problem.slug == "invalid-api-key"


async def test_routes_ask_for_the_scope(authenticator: Authenticator) -> None:
    with pytest.raises(ProblemError) as caught:
        await authenticator.request(asking(KEY), "inbox:read")
    assert caught.value.problem.slug == "forbidden"
    assert "inbox:read" in caught.value.detail


async def test_the_epoch_is_kept_whatever_goes_wrong_once(
    authenticator: Authenticator, control: Control, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("access.auth._RECONCILE_S", 0.0)
    control.error = psycopg.ProgrammingError("no such table yet")
    keeping = asyncio.create_task(authenticator.keep_epoch())
    with capture_logs() as logged:
        for _ in range(20):
            await asyncio.sleep(0)
    assert "epoch.not_kept" in {line["event"] for line in logged}
    assert not keeping.done()
    control.error = None
    async with asyncio.timeout(5):
        while epoch_key() not in redis.data:
            await asyncio.sleep(0)
    keeping.cancel()


@pytest.mark.parametrize(("headers", "slug"), [([], "missing-api-key"), ([(b"x-api-key", b"a"), (b"x-api-key", b"a")], "invalid-header")])
def test_exactly_one_key_header_is_needed(headers: list[tuple[bytes, bytes]], slug: str) -> None:
    with pytest.raises(ProblemError) as caught:
        key_of(headers)
    assert caught.value.problem.slug == slug
