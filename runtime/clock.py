"""The one source of time. Pure code takes a time as a parameter; everything else takes a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations and deadlines."""

    def now_ms(self) -> int:
        """Unix milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; comparable within one process only."""


class _SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic_s = staticmethod(time.monotonic)  # no call of ours around it: an event asks seven times


SYSTEM: Clock = _SystemClock()
