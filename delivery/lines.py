"""The line in front of one endpoint: who is attempted now, who waits in memory, and who does not fit. Pure; seconds of a monotonic clock.

Attempts at once begin low, grow by one per round of successes and halve at each failure (additive increase, multiplicative decrease), so
a failing endpoint holds one slot. Waiting is bounded in time: whoever would wait longer than `wait_max_s`, judged by how long attempts
take (the one under way longest included), does not fit. Room is bounded too, in deliveries and in bytes, and its last quarter is kept for
work that was put off before, so that fresh work never starves it.

Who waits holds a record of a lane, which others need too. So a third of the room is all there is for waiting long. The rest is for an
endpoint so quick that nobody waits for more than a moment; what was let in there must be sent away when that moment is over.
"""

from __future__ import annotations

from itertools import count
from typing import Final, Literal

#: Attempts at once at an endpoint nothing is known about.
_FIRST: Final = 4
_FRESH_SHARE: Final = 0.75
_LONG_SHARE: Final = 1 / 3
#: A moment, as a part of the longest time that may be waited.
_BRIEF_SHARE: Final = 1 / 8

#: `brief`: to wait, but for a moment only.
Place = Literal["run", "wait", "brief", "full"]


class Line:
    """Accounting only; who waits is kept by the caller. `now_s` values only grow, `size` is bytes of a delivery's event."""

    def __init__(self, at_once_max: int, room_max: int, bytes_max: int, wait_max_s: float) -> None:
        self.at_once_max = at_once_max
        self.waiting = 0
        self.brief_s = _BRIEF_SHARE * wait_max_s
        self._room_max = room_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._wait_max_s = wait_max_s
        self._at_once = float(min(_FIRST, at_once_max))
        self._took_s = 0.0
        #: Ticket → when its attempt began; None while it waits for the worker, which says nothing about the endpoint.
        self._running: dict[int, float | None] = {}
        self._sizes: dict[int, int] = {}
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

    def place(self, now_s: float, size: int = 0, *, again: bool) -> Place:
        """`again`: the work was put off before."""
        if self.has_turn() and not self.waiting:
            return "run"
        expected_s = self.takes_s(now_s) * (self.waiting + 1) / self.at_once
        if expected_s > self._wait_max_s:
            return "full"
        share = 1.0 if again else _FRESH_SHARE
        if self._fits(_LONG_SHARE * share, size):
            return "wait"
        return "brief" if expected_s <= self.brief_s and self._fits(share, size) else "full"

    def _fits(self, share: float, size: int) -> bool:
        return self.running + self.waiting < max(1, int(share * self._room_max)) and self._bytes + size <= share * self._bytes_max

    def has_turn(self) -> bool:
        return self.running < self.at_once

    def join(self, size: int = 0) -> None:
        """One more waits."""
        self.waiting += 1
        self._bytes += size

    def drop(self, size: int = 0) -> None:
        """One that waited does not any more."""
        self.waiting -= 1
        self._bytes -= size

    def start(self, size: int = 0) -> int:
        """A ticket for one attempt. It has a place from now on; `begin` says when the attempt itself begins."""
        ticket = next(self._tickets)
        self._running[ticket] = None
        self._sizes[ticket] = size
        self._bytes += size
        return ticket

    def begin(self, ticket: int, now_s: float) -> None:
        self._running[ticket] = now_s

    def end(self, ticket: int, now_s: float, succeeded: bool | None) -> None:
        """`succeeded` is None where nothing was learned."""
        began_s = self._running.pop(ticket)
        self._bytes -= self._sizes.pop(ticket)
        if succeeded is None:
            return
        if began_s is not None:
            self._took_s = (self._took_s + now_s - began_s) / 2
        grown = self._at_once + 1 / self._at_once if succeeded else self._at_once / 2
        self._at_once = min(max(1.0, grown), float(self.at_once_max))

    def forgive(self) -> None:
        """The endpoint is back: how long its failures took says nothing any more."""
        self._took_s = 0.0
