"""Reservations: one event per (organization, mode, dedup key) within the window, as far as Redis remembers.

Redis is the fast answer, not the guarantee: dedup decides from the log. So every failure here means "go on": a lost answer, a crash
between reservation and append, or an empty Redis never loses an event and never makes two effects.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple

from runtime.redis import RedisTick, RedisUnavailable, Script
from schemas.events import Mode
from schemas.ids import EventId, OrganizationId

Outcome = Literal["reserved", "takeover", "duplicate", "conflict", "pending"]

#: Added to the window in Redis, so that it never ends before the log's: an event let through too early would be dropped by dedup.
_WINDOW_SLACK_MS: Final = 1_000
#: Keys in one call: Redis does nothing else meanwhile.
_KEYS_MAX: Final = 100


class Reservation(NamedTuple):
    """`event_id` is the one to append (`reserved`, `takeover`) or the one that holds the key. `remaining_ms`: of a live lease."""

    outcome: Outcome
    event_id: EventId
    remaining_ms: int


class Wanted(NamedTuple):
    """A key to be reserved for an event; `owner` is the request's alone."""

    key: str
    event_id: EventId
    fingerprint: str
    owner: str


class Confirmed(NamedTuple):
    """A key whose event is in the log."""

    key: str
    event_id: EventId
    fingerprint: str
    appended_at_ms: int


def redis_key(organization: OrganizationId, mode: Mode, dedup_key: str) -> str:
    """Hash-tagged by organization, so that Redis Cluster keeps one organization's work on one shard."""
    return f"triggers:idem:{{{organization}}}:{mode}:{hashlib.sha256(dedup_key.encode()).hexdigest()}"


class Reservations:
    """The three scripts. Methods for one key raise `runtime.redis.RedisUnavailable`."""

    def __init__(self, tick: RedisTick, *, lease_ms: int, window_ms: int) -> None:
        self._tick = tick
        self._lease_ms = lease_ms
        self._window_ms = window_ms
        folder = files("ingest") / "lua"
        self._reserve, self._confirm, self._release = (
            Script((folder / f"{n}.lua").read_bytes()) for n in ("reserve", "confirm", "release")
        )

    def reserve(self, key: str, event_id: EventId, fingerprint: str, owner: str) -> Awaitable[Reservation]:
        """Atomically: take the key for `event_id`, take over a lapsed lease under its old id, or say who holds it."""
        arguments = self._lease_ms, self._window_ms + self._lease_ms, event_id, fingerprint, owner
        return self._tick.run_read(_first, self._reserve, (key,), arguments)

    def confirm(self, key: str, event_id: EventId, fingerprint: str, appended_at_ms: int, on_told: Callable[[bool], None]) -> None:
        """Its event is in the log. Nobody waits for it; `on_told` is called once, with whether Redis was told.

        What this process asks of the key afterwards is behind it on the same connection. Another one may find the key pending for a
        moment, and asks again (`ingest.admission`).
        """

        def answered(answer: Any) -> None:
            on_told(not isinstance(answer, RedisUnavailable))

        self._tick.tell(self._confirm, (key,), (event_id, fingerprint, self._until_ms(appended_at_ms)), answered)

    async def reserve_all(self, wanted: Sequence[Wanted]) -> list[Reservation | None]:
        """As `reserve` for many keys of one organization, a hundred in a call. None where Redis gave no answer; never raises that."""
        parts = [wanted[at : at + _KEYS_MAX] for at in range(0, len(wanted), _KEYS_MAX)]
        leases = self._lease_ms, self._window_ms + self._lease_ms
        asked = [
            self._tick.run_read(_each, self._reserve, [one.key for one in part], (*leases, *[text for one in part for text in one[1:]]))
            for part in parts
        ]
        answers: list[Reservation | None] = []
        for part, answer in zip(parts, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, RedisUnavailable):
                    raise answer
                answers += [None] * len(part)
            else:
                answers += answer
        return answers

    async def confirm_all(self, confirmed: Sequence[Confirmed]) -> int:
        """As `confirm` for many keys of one organization. How many Redis was not told of."""
        parts = [confirmed[at : at + _KEYS_MAX] for at in range(0, len(confirmed), _KEYS_MAX)]
        asked = [
            self._tick.run(
                self._confirm,
                [one.key for one in part],
                *[text for one in part for text in (one.event_id, one.fingerprint, self._until_ms(one.appended_at_ms))],
            )
            for part in parts
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return sum(len(part) for part, answer in zip(parts, answers, strict=True) if isinstance(answer, RedisUnavailable))

    def _until_ms(self, appended_at_ms: int) -> int:
        return appended_at_ms + self._window_ms + _WINDOW_SLACK_MS

    async def release(self, key: str, event_id: EventId, owner: str) -> None:
        """After an append that certainly did not happen."""
        await self._tick.run(self._release, (key,), event_id, owner)


def _each(answers: Sequence[Any]) -> list[Reservation]:
    return [Reservation(outcome.decode(), EventId(held.decode()), int(remaining_ms)) for outcome, held, remaining_ms in answers]


def _first(answers: Sequence[Any]) -> Reservation:
    outcome, held, remaining_ms = answers[0]
    return Reservation(outcome.decode(), EventId(held.decode()), remaining_ms)
