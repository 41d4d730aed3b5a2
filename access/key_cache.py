"""What one process remembers of keys: who the valid ones belong to, for seconds, and which are not valid, for one second. Bounded."""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

CACHED_MAX: Final = 10_000
#: A key that was not found is remembered this long in the process, so that a client in a loop does not load Postgres.
_NEGATIVE_S: Final = 1.0

P = TypeVar("P")


class _Cached(NamedTuple, Generic[P]):
    principal: P
    until_s: float


class KeyCache(Generic[P]):
    """By the SHA-256 of the key. Times are monotonic seconds."""

    def __init__(self, valid_s: float) -> None:
        self._valid_s = valid_s
        self._valid: dict[bytes, _Cached[P]] = {}
        # Apart from the valid ones, so that a flood of made-up keys drives none of those out.
        self._unknown_until_s: dict[bytes, float] = {}
        self._once_valid: dict[bytes, None] = {}

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Entries held: valid, not valid, once valid."""
        return len(self._valid), len(self._unknown_until_s), len(self._once_valid)

    def valid(self, hashed: bytes, now_s: float) -> P | None:
        found = self._valid.get(hashed)
        return None if found is None or found.until_s <= now_s else found.principal

    def unknown(self, hashed: bytes, now_s: float) -> bool:
        return self._unknown_until_s.get(hashed, now_s) > now_s

    def once_valid(self, hashed: bytes) -> bool:
        """Whether the last look-up of this process found the key, however long ago. Says nothing about now."""
        return hashed in self._once_valid

    def remember(self, hashed: bytes, principal: P | None, now_s: float, *, reuse: bool = True) -> None:
        """The outcome of a look-up; without `reuse` only that the key was valid. What is full is emptied: it fills again by itself."""
        if principal is None:
            self._once_valid.pop(hashed, None)
            if len(self._unknown_until_s) >= CACHED_MAX:
                self._unknown_until_s.clear()
            self._unknown_until_s[hashed] = now_s + _NEGATIVE_S
            return
        for held in (self._valid, self._once_valid):
            if len(held) >= CACHED_MAX and hashed not in held:
                held.clear()
        self._once_valid[hashed] = None
        if reuse:
            self._valid[hashed] = _Cached(principal, now_s + self._valid_s)

    def clear(self) -> None:
        """Forget what may have changed. Which keys were valid once stays: it decides nothing but whether a key is looked up."""
        self._valid.clear()
        self._unknown_until_s.clear()
