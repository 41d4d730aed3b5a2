"""Time limits that share their timers."""

from __future__ import annotations

import asyncio

import pytest

from runtime.deadlines import GRAIN_S, Deadlines, Within


class TooSlow(Exception):
    pass


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines()


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_a_step_that_takes_too_long_is_ended_soon_after_its_limit_and_never_before(deadlines: Deadlines) -> None:
    limit_s = now_s() + 0.07
    with pytest.raises(TooSlow), Within(deadlines, limit_s, TooSlow):
        await asyncio.sleep(60)
    assert limit_s <= now_s() < limit_s + GRAIN_S + 5
    assert (task := asyncio.current_task()) is not None
    assert task.cancelling() == 0


async def test_a_limit_that_has_passed_ends_the_first_wait(deadlines: Deadlines) -> None:
    with pytest.raises(TooSlow), Within(deadlines, now_s() - 1, TooSlow):
        await asyncio.sleep(60)


async def test_a_step_that_ended_in_time_is_left_alone_afterwards(deadlines: Deadlines) -> None:
    with Within(deadlines, now_s() + 0.01, TooSlow):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01 + 2 * GRAIN_S)


async def test_a_failure_inside_stays_what_it_is(deadlines: Deadlines) -> None:
    with pytest.raises(ValueError, match="own"), Within(deadlines, now_s() + 60, TooSlow):
        raise ValueError("own")


async def test_a_cancellation_from_elsewhere_stays_one(deadlines: Deadlines) -> None:
    async def step() -> None:
        with Within(deadlines, now_s() + 60, TooSlow):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(step())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_at_the_same_moment_stays_one_too(deadlines: Deadlines) -> None:
    async def step() -> None:
        with Within(deadlines, now_s() + 60, TooSlow) as _, inner:
            await asyncio.sleep(60)

    inner = Within(deadlines, now_s() + 60, TooSlow)
    task = asyncio.ensure_future(step())
    await asyncio.sleep(0)
    inner.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_two_limits_inside_each_other_each_ends_its_own_step(deadlines: Deadlines) -> None:
    with Within(deadlines, now_s() + 60, RuntimeError):
        with pytest.raises(TooSlow), Within(deadlines, now_s() + 0.01, TooSlow):
            await asyncio.sleep(60)
        await asyncio.sleep(0)


async def test_steps_whose_limits_end_together_share_a_timer(deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), 0
    call_at = loop.call_at

    def counted(*arguments: object) -> object:
        nonlocal timers
        timers += 1
        return call_at(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)
    limit_s = now_s() + 5

    async def step() -> None:
        with Within(deadlines, limit_s, TooSlow):
            await asyncio.sleep(0)

    await asyncio.gather(*(step() for _ in range(100)))
    assert timers == 1
