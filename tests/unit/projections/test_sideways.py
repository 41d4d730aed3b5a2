"""Work side by side: when one fails nothing of the rest goes on behind the caller's back."""

from __future__ import annotations

import asyncio

import pytest

from projections.sideways import together


async def test_all_of_it_is_done_and_each_goes_on_while_another_waits() -> None:
    first, second, done = asyncio.Event(), asyncio.Event(), []

    async def one(mine: asyncio.Event, other: asyncio.Event) -> None:
        mine.set()
        await other.wait()
        done.append(mine)

    async with asyncio.timeout(5):
        await together(one(first, second), one(second, first))
    assert len(done) == 2


async def test_one_that_fails_ends_the_others_before_its_own_error_is_raised() -> None:
    ended = []

    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # closing takes its time
            ended.append(True)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(together(stays(), fails(), stays()), 5)
    assert ended == [True, True]


async def test_a_caller_that_is_cancelled_takes_the_work_with_it() -> None:
    begun, ended = asyncio.Event(), []

    async def stays() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    caller = asyncio.create_task(together(stays()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [True]
