"""The progress of a command that reads much, on standard error."""

from __future__ import annotations

import sys
from typing import Final

from projections.rebuild import Progress
from runtime.clock import SYSTEM

_LINE_EVERY_S: Final = 5.0
_REDRAW_EVERY_S: Final = 0.2


class Meter:
    """One line: redrawn on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown_s = 0.0

    def __call__(self, progress: Progress) -> None:
        now_s = SYSTEM.monotonic_s()
        whole = progress.done == progress.total
        if now_s - self._shown_s < (_REDRAW_EVERY_S if self._terminal else _LINE_EVERY_S) and not whole:
            return
        self._shown_s = now_s
        line = meter_line(progress)
        print(f"\r\x1b[K{line}" if self._terminal else line, end="\n" if whole or not self._terminal else "", file=sys.stderr, flush=True)


def meter_line(progress: Progress) -> str:
    """`load: 120,000 of 480,000 records (25 %), 41,300/s, 9 s left`."""
    share = 100 * progress.done // progress.total if progress.total else 100
    if not progress.seconds:
        return f"{progress.stage}: {progress.done:,} of {progress.total:,}"
    rate = progress.done / progress.seconds
    left_s = (progress.total - progress.done) / rate if rate else 0
    return f"{progress.stage}: {progress.done:,} of {progress.total:,} records ({share} %), {rate:,.0f}/s, {left_s:,.0f} s left"
