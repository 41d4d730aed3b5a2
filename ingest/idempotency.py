"""Reservations: one event per (organization, mode, dedup key) within the window, as far as Redis remembers.

Redis is the fast answer, not the guarantee: dedup decides from the log. So every failure here means "go on": a lost answer, a crash
between reservation and append, or an empty Redis never loses an event and never makes two effects.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, Literal, NamedTuple

from runtime.redis import RedisTick, Script
from schemas.events import Mode
from schemas.ids import EventId, OrganizationId

Outcome = Literal["reserved", "takeover", "duplicate", "conflict", "pending"]

#: Added to the window in Redis, so that it never ends before the log's: an event let through too early would be dropped by dedup.
_WINDOW_SLACK_MS: Final = 1_000


class Reservation(NamedTuple):
    """`event_id` is the one to append (`reserved`, `takeover`) or the one that holds the key. `remaining_ms`: of a live lease."""

    outcome: Outcome
    event_id: EventId
    remaining_ms: int


def redis_key(organization: OrganizationId, mode: Mode, dedup_key: str) -> str:
    """Hash-tagged by organization, so that Redis Cluster keeps one organization's work on one shard."""
    return f"triggers:idem:{{{organization}}}:{mode}:{hashlib.sha256(dedup_key.encode()).hexdigest()}"


class Reservations:
    """The three scripts. Every method raises `runtime.redis.RedisUnavailable`."""

    def __init__(self, tick: RedisTick, *, lease_ms: int, window_ms: int) -> None:
        self._tick = tick
        self._lease_ms = lease_ms
        self._window_ms = window_ms
        folder = files("ingest") / "lua"
        self._reserve, self._confirm, self._release = (
            Script((folder / f"{n}.lua").read_bytes()) for n in ("reserve", "confirm", "release")
        )

    async def reserve(self, key: str, event_id: EventId, fingerprint: str, owner: str) -> Reservation:
        """Atomically: take the key for `event_id`, take over a lapsed lease under its old id, or say who holds it."""
        outcome, held, remaining_ms = await self._tick.run(
            self._reserve, (key,), event_id, fingerprint, owner, self._lease_ms, self._window_ms + self._lease_ms
        )
        return Reservation(outcome.decode(), EventId(held.decode()), int(remaining_ms))

    async def confirm(self, key: str, event_id: EventId, fingerprint: str, appended_at_ms: int) -> None:
        await self._tick.run(self._confirm, (key,), event_id, fingerprint, appended_at_ms + self._window_ms + _WINDOW_SLACK_MS)

    async def release(self, key: str, event_id: EventId, owner: str) -> None:
        """After an append that certainly did not happen."""
        await self._tick.run(self._release, (key,), event_id, owner)
