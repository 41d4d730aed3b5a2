"""One partition of one source topic as delivery works on it: records waiting, how far it is done, and when to take no more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from delivery.watermark import Watermark
from schemas.records import Record

#: Records waiting in a lane above which its partition is paused, and below which it is resumed.
_WAITING_HIGH: Final = 400
_WAITING_LOW: Final = 100
#: Records above the first one that is not done, in multiples of what may be in flight: what a take-over has to look at again.
_SPANS_MAX: Final = 50


class Lane:
    """`pause` and `resume` are asked of the consumer; both are forgotten with the lane at a rebalance."""

    def __init__(
        self, topic: str, partition: int, watermark: Watermark, in_flight_max: int, *, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.watermark = watermark
        self._in_flight_max = in_flight_max
        self._pause = pause
        self._resume = resume
        self._waiting: deque[Record] = deque()
        self._paused = False
        self._changed = asyncio.Event()

    def add(self, records: Sequence[Record]) -> None:
        self._waiting.extend(records)
        if not self._paused and len(self._waiting) > _WAITING_HIGH:
            self._paused = True
            self._pause()
        self._changed.set()

    async def head(self) -> Record:
        """The next record, left where it is; waits for one, and for room among those in flight."""
        while not self._waiting or self._room <= 0:
            self._changed.clear()
            await self._changed.wait()
        return self._waiting[0]

    def take(self, count_max: int = 1) -> list[Record]:
        """The next records, at most `count_max`, at most what may be in flight."""
        taken = [self._waiting.popleft() for _ in range(min(count_max, self._room, len(self._waiting)))]
        if self._paused and len(self._waiting) < _WAITING_LOW:
            self._paused = False
            self._resume()
        return taken

    @property
    def _room(self) -> int:
        """One record that takes long may be overtaken by many: else an endpoint that hangs would hold its whole partition."""
        return min(self._in_flight_max - self.watermark.in_flight, _SPANS_MAX * self._in_flight_max - self.watermark.span)

    def done(self, offset: int) -> None:
        self.watermark.done(offset)
        self._changed.set()
