"""Writing one FIFO endpoint's position to the log: the newest, one at a time, waited for by nobody.

It may lag behind the journal, because a new owner reads that first: an attempt which is journalled is not made again.
"""

from __future__ import annotations

import asyncio

from delivery.outbox import Outbox
from runtime.crashpoints import reach
from runtime.kafka import Report
from schemas import codec
from schemas.deliveries import FifoPosition


class Commits:
    """Of one endpoint while its partition is owned."""

    def __init__(self, outbox: Outbox, position: FifoPosition) -> None:
        self._outbox = outbox
        self._endpoint_id = position.endpoint_id
        self._newest: FifoPosition | None = position
        self._under_way: asyncio.Future[Report] | None = None
        self._again = False

    def write(self, position: FifoPosition | None) -> None:
        """None: there is nothing more of this endpoint."""
        self._newest = position
        if self._under_way is not None:
            self._again = True
            return
        self._again = False
        reach("delivery.before_position")
        self._under_way = self._outbox.position(self._endpoint_id, None if position is None else codec.encode(position))
        self._under_way.add_done_callback(self._written)

    def _written(self, _: asyncio.Future[Report]) -> None:
        self._under_way = None
        if self._again and self._outbox.is_open:
            self.write(self._newest)

    async def settled(self) -> None:
        """Until the newest is in the log."""
        while self._under_way is not None:
            await asyncio.wait([self._under_way])
            await asyncio.sleep(0)  # its call-back comes after us
