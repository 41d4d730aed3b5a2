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
#: The same in bytes of their values.
_WAITING_BYTES_HIGH: Final = 2_097_152
_WAITING_BYTES_LOW: Final = 524_288
#: Records above the first one that is not done, in multiples of what may be in flight: what a take-over has to look at again.
_SPANS_MAX: Final = 50


class Lane:
    """`pause` and `resume` are asked of the consumer; both are forgotten with the lane at a rebalance."""

    def __init__(
        self,
        topic: str,
        partition: int,
        watermark: Watermark,
        in_flight_max: int,
        *,
        bytes_in_flight_max: int,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.watermark = watermark
        self._in_flight_max = in_flight_max
        self._bytes_in_flight_max = bytes_in_flight_max
        self._pause = pause
        self._resume = resume
        self._waiting: deque[Record] = deque()
        self._waiting_bytes = 0
        #: Offset → bytes of what was taken and is not done.
        self._taken: dict[int, int] = {}
        self._taken_bytes = 0
        self._paused = False
        self._changed = asyncio.Event()

    def add(self, records: Sequence[Record]) -> None:
        self._waiting.extend(records)
        self._waiting_bytes += sum(map(_size, records))
        if not self._paused and (len(self._waiting) > _WAITING_HIGH or self._waiting_bytes > _WAITING_BYTES_HIGH):
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
        taken: list[Record] = []
        while self._waiting and len(taken) < count_max and len(taken) < self._room:
            record = self._waiting.popleft()
            taken.append(record)
            self._waiting_bytes -= (size := _size(record))
            self._taken[record.offset] = size
            self._taken_bytes += size
        if self._paused and len(self._waiting) < _WAITING_LOW and self._waiting_bytes < _WAITING_BYTES_LOW:
            self._paused = False
            self._resume()
        return taken

    @property
    def _room(self) -> int:
        """One record that takes long may be overtaken by many: else an endpoint that hangs would hold its whole partition. A record of any
        size has room where nothing else is under way."""
        if self._taken_bytes >= self._bytes_in_flight_max:
            return 0
        return min(self._in_flight_max - self.watermark.in_flight, _SPANS_MAX * self._in_flight_max - self.watermark.span)

    def done(self, offset: int) -> None:
        self._taken_bytes -= self._taken.pop(offset, 0)
        self.watermark.done(offset)
        self._changed.set()


def _size(record: Record) -> int:
    return len(record.value or b"")
