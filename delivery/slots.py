"""What all endpoints of a worker share: places for attempts, so that slow ones never take those of quick ones, and bytes on their way
out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Slots:
    """Places of two kinds. An attempt that goes on for longer than `slow_after_s` changes to a slow place, if there is one."""

    def __init__(self, quick: int, slow: int, slow_after_s: float) -> None:
        self._quick = asyncio.Semaphore(quick)
        self._quick_max = quick
        self._asking = 0
        self._eased = asyncio.Event()
        self._eased.set()
        self._slow_left = slow
        self._slow_after_s = slow_after_s

    async def eased(self) -> None:
        """Until fewer attempts wait for a quick place than there are: a worker that is busy takes no more."""
        await self._eased.wait()

    def _ask(self, more: int) -> None:
        self._asking += more
        if self._asking < self._quick_max:
            self._eased.set()
        else:
            self._eased.clear()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]], *, slow: bool) -> T | None:
        """Waits for a quick place. None, with nothing done, where `slow` is asked for and no slow place is left."""
        if slow:
            if self._slow_left <= 0:
                return None
            self._slow_left -= 1
            try:
                return await work()
            finally:
                self._slow_left += 1
        self._ask(1)
        try:
            await self._quick.acquire()
        finally:
            self._ask(-1)
        try:
            running = asyncio.ensure_future(work())
            try:
                await asyncio.wait([running], timeout=self._slow_after_s)
                if running.done() or self._slow_left <= 0:
                    return await running
            except asyncio.CancelledError:
                running.cancel()
                raise
            self._slow_left -= 1
        finally:
            self._quick.release()
        try:
            return await running
        finally:
            self._slow_left += 1


class Budget:
    """Bytes that may be under way at once; first come, first served. More than all of them counts as all."""

    def __init__(self, bytes_max: int) -> None:
        self._max = self._left = bytes_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._max)
        if self._waiting or size > self._left:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                self._give(0 if waiter.cancelled() else size)
                raise
        else:
            self._left -= size
        try:
            yield
        finally:
            self._give(size)

    def _give(self, size: int) -> None:
        self._left += size
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._left):
            taken, waiter = self._waiting.popleft()
            if not waiter.cancelled():
                self._left -= taken
                waiter.set_result(None)
