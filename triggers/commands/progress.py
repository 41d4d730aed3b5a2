"""How far a long reading command is: one line on standard error, redrawn, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runtime.clock import SYSTEM

_REDRAW_EVERY_S: Final = 0.2


class ReadingLine:
    """`(topic, records read, records of the range)`, as often as one likes."""

    def __init__(self, *, streaming: bool) -> None:
        self._terminal = sys.stderr.isatty() and not (streaming and sys.stdout.isatty())
        self._shown_s = 0.0

    def __call__(self, topic: str, done: int, total: int) -> None:
        now_s = SYSTEM.monotonic_s()
        if self._terminal and now_s - self._shown_s >= _REDRAW_EVERY_S:
            self._shown_s = now_s
            print(f"\r\x1b[Kreading {topic}: {done:,} of {total:,} records", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown_s:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def reading(*, streaming: bool = False) -> Iterator[ReadingLine]:
    """The line, taken away again when the reading is over, however it ended. None where rows are `streaming` to the same terminal."""
    line = ReadingLine(streaming=streaming)
    try:
        yield line
    finally:
        line.clear()
