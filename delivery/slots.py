"""What all endpoints of a worker share: places for attempts, so that slow ones never take those of quick ones, and bytes on their way
out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class _Held:
    """A quick place, until the attempt is over or has changed to a slow one. `due_s`: loop time at which it changes."""

    __slots__ = ("due_s", "over", "slow")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.over = self.slow = False


class Slots:
    """Places of two kinds. An attempt that goes on for longer than `slow_after_s` changes to a slow place, if there is one.

    One timer looks after all of them: all take the same time to become slow, so they do in the order in which they began.
    """

    def __init__(self, quick: int, slow: int, slow_after_s: float) -> None:
        self._quick_left = self._quick_max = quick
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._asking = 0
        self._under_way = 0
        self._eased = asyncio.Event()
        self._eased.set()
        self._slow_left = slow
        self._slow_after_s = slow_after_s
        self._held: deque[_Held] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """Attempts that have a place or wait for one."""
        return self._under_way

    async def eased(self) -> None:
        """Until fewer attempts wait for a quick place than there are: a worker that is busy takes no more."""
        await self._eased.wait()

    async def run(self, work: Callable[[], Awaitable[T]], *, slow: bool) -> T | None:
        """Waits for a quick place. None, with nothing done, where `slow` is asked for and no slow place is left."""
        self._under_way += 1
        try:
            return await self._run(work, slow=slow)
        finally:
            self._under_way -= 1

    async def _run(self, work: Callable[[], Awaitable[T]], *, slow: bool) -> T | None:
        if slow:
            if self._slow_left <= 0:
                return None
            self._slow_left -= 1
            try:
                return await work()
            finally:
                self._slow_left += 1
        if self._quick_left > 0:
            self._quick_left -= 1
        else:
            await self._ask()
        held = self._hold()
        try:
            return await work()
        finally:
            held.over = True
            if held.slow:
                self._slow_left += 1
            else:
                self._give_back()

    async def _ask(self) -> None:
        """A place that is given back. First come, first served: none is left as long as anybody waits."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._asking += 1
        if self._asking >= self._quick_max:
            self._eased.clear()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._give_back()
            raise
        finally:
            self._asking -= 1
            if self._asking < self._quick_max:
                self._eased.set()

    def _give_back(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._quick_left += 1

    def _hold(self) -> _Held:
        loop = asyncio.get_running_loop()
        held = _Held(loop.time() + self._slow_after_s)
        self._held.append(held)
        if self._timer is None:
            self._timer = loop.call_at(held.due_s, self._look)
        return held

    def _look(self) -> None:
        """Those that are slow by now change their places."""
        self._timer, loop = None, asyncio.get_running_loop()
        while self._held and (self._held[0].over or self._held[0].due_s <= loop.time()):
            held = self._held.popleft()
            if not held.over and self._slow_left > 0:
                held.slow = True
                self._slow_left -= 1
                self._give_back()
        if self._held:
            self._timer = loop.call_at(self._held[0].due_s, self._look)


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
