"""An endpoint's own rate: each delivery gets a turn, in order, and what must wait for its turn is put off until then. Pure; times in Unix
ms.

A token bucket written as turns (the generic cell rate algorithm, ITU-T I.371): turns are one interval apart, and a turn may be used from
its time on until the grace is over. Unused turns of the last `grace_ms` are the bucket's burst. So within any window of length w at most
`(w + grace) / interval + 1` deliveries start.
"""

from __future__ import annotations

from math import ceil


class Pace:
    """`now_ms` values only grow. `name` marks the turns it hands out: those of an earlier owner or of another rate are not its own."""

    def __init__(self, name: str, rate_per_minute: int, grace_ms: int) -> None:
        self.name = name
        self.rate_per_minute = rate_per_minute
        self._interval_ms = 60_000 / rate_per_minute
        self._grace_ms = grace_ms
        self._next_ms = float("-inf")

    @property
    def next_ms(self) -> int:
        """When the next turn is; 0 before the first."""
        return ceil(max(self._next_ms, 0))

    def take(self, now_ms: int) -> int:
        """The next turn: usable at once when it is not after `now_ms`."""
        turn_ms = max(self._next_ms, now_ms - self._grace_ms)
        self._next_ms = turn_ms + self._interval_ms
        return -int(-turn_ms // 1)  # rounded up: never early

    def rests(self, now_ms: int) -> bool:
        """Whether forgetting it would change nothing: no turn it handed out can be used any more, and its burst is whole."""
        return self._next_ms <= now_ms - self._grace_ms

    def holds(self, name: str | None, turn_ms: int, now_ms: int) -> bool:
        """Whether a turn handed out before may be used now. One that comes too late takes another, or late ones would come in a bunch."""
        return name == self.name and turn_ms <= now_ms <= turn_ms + self._grace_ms
