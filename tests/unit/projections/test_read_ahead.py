"""Reading a log one batch ahead of the database: the same batches in the same order, and a thread that is done when the reading ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from projections.log_reader import Chunk, LogError, LogReader, Place, Range
from schemas.records import Record

PLACE = ("t", 0)


class Reader(LogReader):
    """Hands out `batches` batches of one record; `hold` keeps back what comes after the first until it is set or the reader abandoned."""

    def __init__(self, batches: int, *, hold: bool = False, fails_at: int | None = None) -> None:
        self._abandoned = False
        self._batches, self._hold, self._fails_at = batches, hold, fails_at
        self.begun: list[threading.Event] = [threading.Event() for _ in range(batches + 1)]
        self.reading = 0

    def read(self, ranges: Mapping[Place, Range]) -> Iterator[list[Chunk]]:
        for number in range(self._batches):
            self.begun[number].set()
            if number == self._fails_at:
                raise LogError("a hole")
            self.reading += 1
            deadline_s = time.monotonic() + 5
            while self._hold and number and not self._abandoned and time.monotonic() < deadline_s:
                time.sleep(0.01)
            self.reading -= 1
            yield [Chunk(PLACE, [Record(number, 0, b"", b"", ())])]


async def test_batches_come_in_order_and_the_next_one_while_the_caller_waits() -> None:
    reader, seen = Reader(4), []
    async with asyncio.timeout(5), aclosing(reader.read_ahead({})) as batches:
        async for (chunk,) in batches:
            seen.append(chunk.begin)
            if chunk.begin < 3:
                await asyncio.to_thread(reader.begun[chunk.begin + 1].wait)  # without reading ahead it would wait for ever
    assert seen == [0, 1, 2, 3]


async def test_what_the_log_lacks_is_raised_at_its_place() -> None:
    reader, seen = Reader(4, fails_at=2), []
    with pytest.raises(LogError, match="a hole"):
        async with aclosing(reader.read_ahead({})) as batches:
            async for (chunk,) in batches:
                seen.append(chunk.begin)
    assert seen == [0, 1]


async def fail(_batch: Any) -> None:
    raise ZeroDivisionError


async def wait(_batch: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("put", [fail, wait])
async def test_when_the_caller_ends_nothing_reads_on_behind_its_back(put: Any) -> None:
    """Else the consumer would be closed, or asked for other ranges, under a thread that still uses it."""
    reader = Reader(3, hold=True)

    async def through() -> None:
        async with aclosing(reader.read_ahead({})) as batches:
            async for batch in batches:
                await asyncio.to_thread(reader.begun[1].wait)
                await put(batch)

    running = asyncio.create_task(through())
    if put is wait:
        await asyncio.to_thread(reader.begun[1].wait)
        running.cancel()
    with pytest.raises((ZeroDivisionError, asyncio.CancelledError)):
        await asyncio.wait_for(running, 5)
    assert reader.reading == 0
    assert not reader._abandoned


async def test_a_cancelled_wait_for_a_batch_lets_the_thread_end_first() -> None:
    reader = Reader(3, hold=True)

    async def through() -> None:
        async with aclosing(reader.read_ahead({})) as batches:
            async for _ in batches:
                pass

    running = asyncio.create_task(through())
    await asyncio.to_thread(reader.begun[1].wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    assert reader.reading == 0
