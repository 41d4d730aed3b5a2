"""The circuit breaker of one endpoint: whether an attempt would be made for nothing. Pure; times in Unix ms.

*Closed*: attempts go on. It opens after so many failures in a row, or when too large a part of a window's attempts failed. *Open*: nothing
is attempted until its time is over. *Half open*: one attempt is let through as a probe. Its failure opens again for longer, its success
closes.

A success always closes, whoever made it: the endpoint answers. A failure that ends while the breaker is open is of an attempt begun
before, and tells nothing new. The state lives in the memory of the endpoint's one owner; a new owner learns it again.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

#: The window is counted in this many parts; the oldest drops out whole.
WINDOW_PARTS: Final = 12

Permit = Literal["attempt", "probe"]


class Rules(NamedTuple):
    """When to open: `failures` in a row, or a part of at least `ratio` of at least `attempts_min` within `window_ms`.

    `open_ms[n]`: how long it stays open after n failed probes; the last entry goes on.
    """

    failures: int
    ratio: float
    attempts_min: int
    window_ms: int
    open_ms: tuple[int, ...]


class Breaker:
    """`now_ms` values of one breaker only grow."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open_until_ms: int | None = None
        self._probing = False
        self._level = 0
        self._in_a_row = 0
        #: Part of the window → (failed, all).
        self._parts: dict[int, tuple[int, int]] = {}

    @property
    def closed(self) -> bool:
        return self._open_until_ms is None

    def refused_until(self, now_ms: int) -> int | None:
        """When to ask again; None where `begin` would give a permit."""
        if self._open_until_ms is None:
            return None
        if now_ms < self._open_until_ms:
            return self._open_until_ms
        return now_ms + self._rules.open_ms[0] if self._probing else None

    def begin(self, now_ms: int) -> Permit | None:
        """A permit for one attempt. A probe's must be given back with `succeeded`, `failed` or `abandoned`."""
        if self.refused_until(now_ms) is not None:
            return None
        if self._open_until_ms is None:
            return "attempt"
        self._probing = True
        return "probe"

    def succeeded(self, now_ms: int) -> bool:
        """Whether it was open until now."""
        was_open = self._open_until_ms is not None
        if was_open:
            self._close()
        self._in_a_row = 0
        self._count(now_ms, failed=0)
        return was_open

    def failed(self, now_ms: int, permit: Permit) -> bool:
        """Whether it opened now, having been closed."""
        if self._open_until_ms is not None:
            if permit == "probe" and self._probing:
                self._probing = False
                self._level = min(self._level + 1, len(self._rules.open_ms) - 1)
                self._open_until_ms = now_ms + self._rules.open_ms[self._level]
            return False
        self._in_a_row += 1
        self._count(now_ms, failed=1)
        failed, total = (sum(column) for column in zip(*self._parts.values(), strict=True))
        too_many = total >= self._rules.attempts_min and failed >= self._rules.ratio * total
        if self._in_a_row < self._rules.failures and not too_many:
            return False
        self._close()
        self._open_until_ms = now_ms + self._rules.open_ms[0]
        return True

    def abandoned(self, permit: Permit) -> None:
        """The attempt ended without telling anything about the endpoint."""
        if permit == "probe":
            self._probing = False

    def _close(self) -> None:
        self._open_until_ms = None
        self._probing = False
        self._level = 0
        self._in_a_row = 0
        self._parts.clear()

    def _count(self, now_ms: int, *, failed: int) -> None:
        part = now_ms * WINDOW_PARTS // self._rules.window_ms
        for old in [old for old in self._parts if old <= part - WINDOW_PARTS]:
            del self._parts[old]
        failures, total = self._parts.get(part, (0, 0))
        self._parts[part] = failures + failed, total + 1
