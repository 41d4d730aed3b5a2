"""Events that wait in memory for one FIFO endpoint: the next ones without a gap, or none. What does not fit is read again from the log."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from runtime.kafka import Headers
from schemas.events import Ingested

_ITEMS_MAX: Final = 100


class Item(NamedTuple):
    """An event planned for the endpoint at `plan_offset` of the journal. `value`: its ingested value, verbatim."""

    plan_offset: int
    accepted_offset: int
    event: Ingested
    value: bytes
    headers: Headers


class Room:
    """Bytes that all queues of a worker share."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, size: int, *, anyway: bool = False) -> bool:
        if size > self._left and not anyway:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        self._left += size


class Queue:
    """`behind`: there may be events in the log after the last one here, so that what comes now cannot follow it."""

    def __init__(self, room: Room, *, behind: bool) -> None:
        self._room = room
        self._items: deque[Item] = deque()
        self.behind = behind

    def __len__(self) -> int:
        return len(self._items)

    @property
    def head(self) -> Item:
        return self._items[0]

    def offer(self, item: Item) -> None:
        """An event that was planned just now, which nothing else was since the last that was offered."""
        if self.behind:
            return
        if len(self._items) < _ITEMS_MAX and self._room.take(len(item.value)):
            self._items.append(item)
        else:
            self.behind = True

    def fill(self, item: Item) -> None:
        """The next one as it was read from the log: one at least must have room, whatever the others hold."""
        self._room.take(len(item.value), anyway=True)
        self._items.append(item)

    def pop(self) -> None:
        self._room.give(len(self._items.popleft().value))

    def drop(self) -> None:
        """Hold nothing while the endpoint is waited for."""
        self.behind = self.behind or bool(self._items)
        while self._items:
            self.pop()
