"""What admission asks, with answers that are chosen: keys, quotas, schemas, reservations, the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from access.auth import Principal
from access.limits import Allowance
from ingest.idempotency import Confirmed, Outcome, Reservation, Wanted
from runtime.kafka import Report
from runtime.redis import RedisUnavailable
from schemas import codec, ids
from schemas.events import Ingested
from schemas.ids import ApiKeyId, EventId
from schemas.problems import INVALID_EVENT, INVALID_KEY, UNAVAILABLE, ProblemError

ORGANIZATION = ids.organization_id(1, bytes(10))
PRINCIPAL = Principal(ApiKeyId("key_1"), ORGANIZATION, "test", ("events:write",), "free", None, None)
HELD = ids.event_id(7, bytes(10))


class Auth:
    """`known` is cached; `revoke` is what the next round trip shows."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.principal: Principal | None = PRINCIPAL
        self.known = True
        self.changes = 0
        self.error = INVALID_KEY
        self.slow_s = 0.0

    def cached(self, _: str, address: str | None = None) -> Principal | None:
        return self.principal if self.known else None

    def at_hand(self, _: bytes) -> Principal | None:
        return self.principal if self.known else None

    def used(self, _: Principal) -> None:
        pass

    async def authenticate(self, _: str, address: str | None = None) -> Principal:
        await asyncio.sleep(self.slow_s)
        if self.principal is None:
            raise ProblemError(self.error, "No.")
        return self.principal

    async def moved(self) -> bool:
        before = self.changes
        with suppress(RedisUnavailable):
            await self.tick.touch()
        return self.changes != before

    def revoke(self) -> None:
        self.principal, self.changes = None, self.changes + 1


class Tick:
    def __init__(self) -> None:
        self.on_trip: Any = lambda: None
        self.up = True

    @property
    def connected(self) -> bool:
        return self.up

    async def touch(self) -> None:
        self.on_trip()
        if not self.up:
            raise RedisUnavailable("down")


class Quota:
    """A limiter with `left` events to grant. Like the real one it travels in the tick's round trip, and goes on without Redis."""

    def __init__(self, tick: Tick) -> None:
        self.left = 1_000
        self.taken: list[int] = []
        self._tick = tick

    def ask(self, principal: Principal, count: int) -> asyncio.Future[Allowance]:
        return asyncio.ensure_future(self.take(principal, count))

    def ask_for(self, principal: Principal, on_allowance: Callable[[Allowance], None]) -> bool:
        if self.left <= 0:
            return False
        self.ask(principal, 1).add_done_callback(lambda done: on_allowance(done.result()))
        return True

    async def take(self, _principal: Principal, count: int) -> Allowance:
        self.taken.append(count)
        granted = min(count, self.left)
        self.left -= granted
        if granted:
            with suppress(RedisUnavailable):
                await self._tick.touch()
        return Allowance(limit=1_000, granted=granted, remaining=self.left, reset_s=7)


class Types:
    """A catalogue that refuses one type."""

    def __init__(self) -> None:
        self.refused = "refused.type"

    def known(self, _organization: str, _mode: str) -> Types:
        return self

    def has(self, event_type: str) -> bool:
        return event_type == self.refused

    def check(self, event_type: str, _payload: bytes) -> None:
        if event_type == self.refused:
            raise ProblemError(INVALID_EVENT, "It does not conform.")


class Held:
    """Reservations whose next outcomes are chosen; the last one stays. `told` is what came after the append."""

    def __init__(self, tick: Tick) -> None:
        self.outcomes: list[Outcome] = ["reserved"]
        self.told: list[tuple[str, EventId]] = []
        self._tick = tick

    async def reserve(self, _key: str, event_id: EventId, _fingerprint: str, _owner: str) -> Reservation:
        await self._tick.touch()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        return Reservation(outcome, event_id if outcome == "reserved" else HELD, 1_500 if outcome == "pending" else 0)

    def ask(self, key: str, event_id: EventId, fingerprint: str, owner: str, on_held: Callable[[Reservation | None], None]) -> None:
        async def asked() -> None:
            try:
                held = await self.reserve(key, event_id, fingerprint, owner)
            except RedisUnavailable:
                on_held(None)
            else:
                on_held(held)

        self._asking = asyncio.ensure_future(asked())

    async def reserve_all(self, wanted: Sequence[Wanted]) -> list[Reservation | None]:
        async def one(asked: Wanted) -> Reservation | None:
            try:
                return await self.reserve(*asked)
            except RedisUnavailable:
                return None

        return list(await asyncio.gather(*(one(asked) for asked in wanted)))

    async def confirm_all(self, confirmed: Sequence[Confirmed]) -> int:
        try:
            await self._tick.touch()
        except RedisUnavailable:
            return len(confirmed)
        self.told += [("confirm", one.event_id) for one in confirmed]
        return 0

    def confirm(self, _key: str, event_id: EventId, _fingerprint: str, _at_ms: int, on_told: Callable[[bool], None]) -> None:
        if self._tick.up:
            self.told.append(("confirm", event_id))
        asyncio.get_running_loop().call_soon(on_told, self._tick.up)

    async def resolve(self, _key: str, event_id: EventId, *, in_log: bool) -> None:
        await self._tick.touch()
        self.told.append(("taken" if in_log else "free", event_id))

    async def release(self, _key: str, event_id: EventId, _owner: str) -> None:
        await self._tick.touch()
        self.told.append(("release", event_id))


class Log:
    def __init__(self) -> None:
        self.events: list[Ingested] = []
        self.headers: list[dict[str, bytes | None]] = []
        self.error: ProblemError | None = None
        self.on_append: Any = lambda: None
        self.slow_s = 0.0
        #: Whether `HELD` is in it; None: nobody can say.
        self.has_held: bool | None = False

    async def has(self, _organization: str, _mode: str, event_id: EventId) -> bool:
        if self.has_held is None:
            raise ProblemError(UNAVAILABLE, "Away.")
        return self.has_held and event_id == HELD

    def send(self, organization: str, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> asyncio.Future[Report]:
        return asyncio.ensure_future(self.append(organization, value, headers))

    async def confirmed(self, sent: asyncio.Future[Report]) -> Report:
        return await sent

    def post(self, organization: str, value: bytes, headers: Sequence[tuple[str, bytes | None]], on_report: Callable[[Any], None]) -> None:
        def reported(done: asyncio.Future[Report]) -> None:
            on_report(done.exception() or done.result())

        self.send(organization, value, headers).add_done_callback(reported)

    @staticmethod
    def outcome(report: Any) -> ProblemError | None:
        return report if isinstance(report, ProblemError) else None

    async def append(self, organization: str, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Report:
        assert organization == ORGANIZATION
        await asyncio.sleep(self.slow_s)
        if self.error is not None:
            raise self.error
        self.on_append()
        self.events.append(codec.ingested.decode(value))
        self.headers.append(dict(headers))
        return Report("events.ingested", 0, 1, 1_000)
