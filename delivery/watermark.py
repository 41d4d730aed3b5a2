"""How far a partition is done without a gap: what may be committed while records finish out of order. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

NOTHING: Final = -1


class Watermark:
    """Offsets are started in order and finished in any order; `next_offset` is the first that is not finished.

    Each started offset carries a number (the ingested offset of an accepted record, else -1); `highest` is the highest of those below
    the watermark, so that both can be committed together.
    """

    def __init__(self, next_offset: int, highest: int = NOTHING) -> None:
        self.next_offset = next_offset
        self.highest = highest
        self._started: deque[tuple[int, int]] = deque()
        self._done: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Offsets started and not done."""
        return len(self._started) - len(self._done)

    @property
    def span(self) -> int:
        """Offsets started and not below the watermark: what a new owner would see again."""
        return len(self._started)

    def start(self, offset: int, number: int = NOTHING) -> None:
        """Raises `ValueError` if an earlier offset was started after this one."""
        if self._started and offset <= self._started[-1][0]:
            raise ValueError(f"offset {offset} comes after {self._started[-1][0]}")
        self._started.append((offset, number))

    def done(self, offset: int) -> None:
        self._done.add(offset)
        while self._started and self._started[0][0] in self._done:
            finished, number = self._started.popleft()
            self._done.discard(finished)
            self.next_offset = finished + 1
            self.highest = max(self.highest, number)
