"""The line in front of one endpoint: who is attempted now, who waits in memory, and who does not fit. Pure; seconds of a monotonic clock.

Attempts at once begin low, grow by one per round of successes and halve at each failure (additive increase, multiplicative decrease), so
a failing endpoint holds one slot. Waiting is bounded in time: whoever would wait longer than `wait_max_s`, judged by how long attempts
take (the one under way longest included), does not fit. Room is bounded too, and its last quarter is kept for work that was put off
before, so that fresh work never starves it.
"""

from __future__ import annotations

from itertools import count
from typing import Final, Literal

#: Attempts at once at an endpoint nothing is known about.
_FIRST: Final = 4
_FRESH_SHARE: Final = 0.75

Place = Literal["run", "wait", "full"]


class Line:
    """Accounting only; who waits is kept by the caller. `now_s` values only grow."""

    def __init__(self, at_once_max: int, room_max: int, wait_max_s: float) -> None:
        self.at_once_max = at_once_max
        self.waiting = 0
        self._room_max = room_max
        self._wait_max_s = wait_max_s
        self._at_once = float(min(_FIRST, at_once_max))
        self._took_s = 0.0
        #: Ticket → when its attempt began; None while it waits for the worker, which says nothing about the endpoint.
        self._running: dict[int, float | None] = {}
        self._tickets = count(1)

    @property
    def at_once(self) -> int:
        return int(self._at_once)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._running and not self.waiting

    def limit(self, at_once_max: int) -> None:
        """The endpoint's own bound has changed."""
        self.at_once_max = at_once_max
        self._at_once = min(self._at_once, float(at_once_max))

    def takes_s(self, now_s: float) -> float:
        """How long an attempt takes, as far as is known."""
        oldest_s = min((began_s for began_s in self._running.values() if began_s is not None), default=now_s)
        return max(self._took_s, now_s - oldest_s)

    def place(self, now_s: float, *, again: bool) -> Place:
        """`again`: the work was put off before."""
        if self.has_turn() and not self.waiting:
            return "run"
        room = self._room_max if again else max(1, int(_FRESH_SHARE * self._room_max))
        if self.running + self.waiting >= room:
            return "full"
        expected_s = self.takes_s(now_s) * (self.waiting + 1) / self.at_once
        return "full" if expected_s > self._wait_max_s else "wait"

    def has_turn(self) -> bool:
        return self.running < self.at_once

    def start(self) -> int:
        """A ticket for one attempt. It has a place from now on; `begin` says when the attempt itself begins."""
        ticket = next(self._tickets)
        self._running[ticket] = None
        return ticket

    def begin(self, ticket: int, now_s: float) -> None:
        self._running[ticket] = now_s

    def end(self, ticket: int, now_s: float, succeeded: bool | None) -> None:
        """`succeeded` is None where nothing was learned."""
        began_s = self._running.pop(ticket)
        if succeeded is None:
            return
        if began_s is not None:
            self._took_s = (self._took_s + now_s - began_s) / 2
        grown = self._at_once + 1 / self._at_once if succeeded else self._at_once / 2
        self._at_once = min(max(1.0, grown), float(self.at_once_max))

    def forgive(self) -> None:
        """The endpoint is back: how long its failures took says nothing any more."""
        self._took_s = 0.0
