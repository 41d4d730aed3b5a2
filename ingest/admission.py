"""From drafts to events in the log: schema, quota, reservation, append, confirmation. The order of effects is the promise.

A crash between any two steps leaves either nothing, or a reservation whose lease lapses, or an event in the log whose caller asks again
under the same key and is told its id. Knows no HTTP but its problems.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from access.auth import Authenticator, key_of
from access.http import Context
from access.limits import Allowance, Limiter, refused
from ingest.accept import Draft
from ingest.append import Appender, unknown
from ingest.caller import Caller, told, too_slow_to_check, within, without_redis
from ingest.catalogue import Catalogue
from ingest.idempotency import Reservation, Reservations, redis_key
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.kafka import Headers, Report
from runtime.metrics import RESERVATIONS
from runtime.settings import IngestSettings
from schemas import codec, ids
from schemas.events import SCHEMA_VERSION, Ingested
from schemas.problems import DUPLICATE, IN_FLIGHT, KEY_REUSED, ProblemError

SCOPE: Final = "events:write"
_OWNER_RANDOM_BYTES: Final = 12
_PAUSE_FIRST_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.1
_MAY_APPEND: Final = ("reserved", "takeover")
#: Bytes of a batch read before the event loop looks at everybody else.
_BYTES_AT_ONCE: Final = 32_768

T = TypeVar("T")


class Admitted(NamedTuple):
    """An event that is in the log."""

    event: Ingested
    report: Report


class _Ready(NamedTuple):
    """An event on its way in. `name` is its reservation's key in Redis, None for an event without a dedup key."""

    event: Ingested
    name: str | None
    owner: str


Outcome = Admitted | ProblemError


class Admission:
    """The one way into the log. Everything it needs is handed in; nothing is global."""

    def __init__(
        self,
        settings: IngestSettings,
        clock: Clock,
        authenticator: Authenticator,
        limiter: Limiter,
        catalogue: Catalogue,
        reservations: Reservations,
        appender: Appender,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._authenticator = authenticator
        self._limiter = limiter
        self._catalogue = catalogue
        self._reservations = reservations
        self._appender = appender

    async def caller(self, headers: Sequence[tuple[bytes, bytes]], address: str | None, context: Context, deadline_s: float) -> Caller:
        """Raises the problems of a key that is missing, not valid, limited, or without the scope."""
        key = key_of(headers)
        changes = self._authenticator.changes
        principal = self._authenticator.cached(key, address)
        if principal is None:
            async with within(deadline_s, too_slow_to_check):
                principal = await self._authenticator.authenticate(key, address)
        return Caller(principal.require(SCOPE), key, address, changes, context, deadline_s)

    async def count(self, caller: Caller, items: int) -> Allowance:
        """Count a request against its organization's quota, once."""
        if caller.allowance is None:
            caller.allowance = await self._limiter.take(caller.principal, items)
        return caller.allowance

    async def one(self, caller: Caller, draft: Draft) -> Admitted:
        """Raises `ProblemError`; a 503's `outcome` says whether the event may be in the log."""
        async with within(caller.deadline_s, too_slow_to_check):
            await self._conforms_now(caller, draft)
            ready = self._ready(caller, draft)
            counting = asyncio.ensure_future(self.count(caller, 1))  # begins first, and travels with the reservation
            held = await self._reserve(ready)
            allowance = await counting
            if not allowance.granted:
                await self._let_go(ready, held)
                raise refused(allowance)
            await self._valid_or_let_go(caller, ready, held)
            held = await self._settle(caller, ready, held)
        return await self._append(caller, ready, held)

    async def many(self, caller: Caller, items: Sequence[bytes], read: Callable[[bytes], Draft]) -> list[Outcome]:
        """What became of each item, in order; one that fails disturbs no other. Appended in the order given.

        Raises the problems of the whole call: a quota that grants nothing, a key that was revoked meanwhile.
        """
        async with within(caller.deadline_s, too_slow_to_check):
            allowance = await self.count(caller, len(items))
            if not allowance.granted:
                raise refused(allowance)
            outcomes: dict[int, Outcome] = {}
            ready: dict[int, _Ready] = {}
            bytes_read = 0
            for place, item in enumerate(items):
                try:
                    if place >= allowance.granted:
                        raise refused(allowance)
                    draft = read(item)
                    await self._conforms(caller, draft.type, draft.payload)
                    ready[place] = self._ready(caller, draft)
                except ProblemError as error:
                    outcomes[place] = error
                bytes_read += len(item)
                if bytes_read >= _BYTES_AT_ONCE:
                    bytes_read = 0
                    await asyncio.sleep(0)
            first, later = _first_of_each_key(ready)
            held = dict(zip(first, await asyncio.gather(*(self._reserve(ready[place]) for place in first)), strict=True))
            try:
                changed = await self._key_changed(caller)
            except ProblemError:
                await asyncio.gather(*(self._let_go(ready[place], held[place]) for place in first))
                raise
            if changed:
                outcomes.update(await self._conform_no_more(caller, ready, held))
                first, later = ([place for place in places if place not in outcomes] for places in (first, later))
        waiting = [place for place in first if (found := held[place]) is not None and found.outcome == "pending"]
        now = [place for place in first if place not in set(waiting)]
        for places in (now, sorted([*waiting, *later])):  # tasks begin in the order they are made, so records are sent in it
            answers = await asyncio.gather(*(self._item(caller, ready[place], held.get(place)) for place in places))
            outcomes.update(zip(places, answers, strict=True))
        return [outcomes[place] for place in range(len(items))]

    async def _conform_no_more(
        self, caller: Caller, ready: Mapping[int, _Ready], held: Mapping[int, Reservation | None]
    ) -> dict[int, ProblemError]:
        """Items that a schema which came between refuses, by place."""
        refusals: dict[int, ProblemError] = {}
        for place, item in ready.items():
            try:
                await self._conforms(caller, item.event.type, bytes(item.event.payload))
            except ProblemError as error:
                refusals[place] = error
                await self._let_go(item, held.get(place))
        return refusals

    async def _item(self, caller: Caller, ready: _Ready, held: Reservation | None) -> Outcome:
        try:
            if held is None or held.outcome == "pending":
                async with within(caller.deadline_s, too_slow_to_check):
                    held = await self._settle(caller, ready, held or await self._reserve(ready))
            else:
                held = self._may_append(held)
            return await self._append(caller, ready, held)
        except ProblemError as error:
            return error

    async def _conforms_now(self, caller: Caller, draft: Draft) -> None:
        """As `_conforms`, for an event that has made no round trip yet: a schema that was taken away may not refuse it."""
        try:
            await self._conforms(caller, draft.type, draft.payload)
        except ProblemError:
            if not await self._authenticator.moved():
                raise
            await self._conforms(caller, draft.type, draft.payload)

    async def _conforms(self, caller: Caller, event_type: str, payload: bytes) -> None:
        """Raises the problem `schema-violation`."""
        principal = caller.principal
        validators = self._catalogue.known(principal.organization, principal.mode)
        if validators is None:
            validators = await self._catalogue.validators(principal.organization, principal.mode)
        validators.check(event_type, payload)

    def _ready(self, caller: Caller, draft: Draft) -> _Ready:
        principal, now_ms = caller.principal, self._clock.now_ms()
        event = Ingested(
            v=SCHEMA_VERSION,
            id=ids.event_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
            organization=principal.organization,
            mode=principal.mode,
            type=draft.type,
            received_at_ms=now_ms,
            fingerprint=draft.fingerprint,
            dedup_key=draft.dedup_key,
            subject=draft.subject,
            occurred_at=draft.occurred_at,
            content_type=draft.content_type,
            base64=draft.base64,
            cloudevent=None if draft.cloudevent is None else dict(draft.cloudevent),
            payload=Raw(draft.payload),
        )
        if draft.dedup_key is None:
            return _Ready(event, None, "")
        name = redis_key(principal.organization, principal.mode, draft.dedup_key)
        return _Ready(event, name, os.urandom(_OWNER_RANDOM_BYTES).hex())

    async def _key_changed(self, caller: Caller) -> bool:
        """After a Redis round trip: whether it showed another epoch. Then the key was looked up again, and what may be done in its name."""
        if self._authenticator.changes == caller.changes:
            return False
        caller.changes = self._authenticator.changes
        (await self._authenticator.authenticate(caller.key, caller.address)).require(SCOPE)
        return True

    async def _valid_or_let_go(self, caller: Caller, ready: _Ready, held: Reservation | None) -> None:
        """Before the append: the key and the schema as the last round trip left them."""
        try:
            if await self._key_changed(caller):
                await self._conforms(caller, ready.event.type, bytes(ready.event.payload))
        except ProblemError:
            await self._let_go(ready, held)
            raise

    async def _reserve(self, ready: _Ready) -> Reservation | None:
        """None for an event without a key, and without Redis: then dedup decides from the log."""
        if ready.name is None:
            return None
        event = ready.event
        held = await without_redis(self._reservations.reserve(ready.name, event.id, event.fingerprint, ready.owner))
        RESERVATIONS.labels("without_redis" if held is None else held.outcome).inc()
        return held

    async def _settle(self, caller: Caller, ready: _Ready, held: Reservation | None) -> Reservation | None:
        """Wait for another request under the same key, within half of the deadline, until the key is ours or taken."""
        pause_s = _PAUSE_FIRST_S
        deadline_s = self._clock.monotonic_s() + self._settings.request_deadline_s / 2
        while held is not None and held.outcome == "pending" and self._clock.monotonic_s() < deadline_s:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            held = await self._reserve(ready)
            await self._valid_or_let_go(caller, ready, held)
        return self._may_append(held)

    def _may_append(self, held: Reservation | None) -> Reservation | None:
        """Raises the problems of a key that is taken."""
        if held is None or held.outcome in _MAY_APPEND:
            return held
        located = {"Location": f"/events/{held.event_id}"}
        members = {"id": held.event_id, "idempotency_window_s": int(self._settings.idempotency_window_s)}
        if held.outcome == "duplicate":
            detail = f"This event is {held.event_id} already; nothing was added. Do not send it again."
            raise ProblemError(DUPLICATE, detail, headers=located, members=members)
        if held.outcome == "conflict":
            detail = f"Under this idempotency key {held.event_id} was sent, with another type, subject or payload. Use a new key."
            raise ProblemError(KEY_REUSED, detail, headers=located, members=members)
        raise ProblemError(
            IN_FLIGHT, "Another request with this idempotency key is under way. Ask again in a moment.",
            headers={"Retry-After": str(max(1, -(-held.remaining_ms // 1000)))}, members={"id": held.event_id},
        )  # fmt: skip

    async def _let_go(self, ready: _Ready, held: Reservation | None) -> None:
        """Nothing was appended under this reservation by us, and nothing will be."""
        if ready.name is not None and held is not None and held.outcome in _MAY_APPEND:
            await told(self._reservations.release(ready.name, held.event_id, ready.owner))

    async def _append(self, caller: Caller, ready: _Ready, held: Reservation | None) -> Admitted:
        """Append and confirm. What Redis is told after the append is help for the next caller; not to have told it loses nothing."""
        event = ready.event
        if held is not None and held.event_id != event.id:
            event = msgspec.structs.replace(event, id=held.event_id)  # taken over: the same event must keep its id
        if ready.name is not None:
            reach("api.after_reserve")
        try:
            async with within(caller.deadline_s, unknown):  # what was sent cannot be taken back
                report = await self._appender.append(event.organization, codec.encode(event), _record_headers(event, caller.context))
        except ProblemError as error:
            if error.members.get("outcome") == "not_appended":
                await self._let_go(ready, held)
            raise
        if ready.name is not None:
            reach("api.after_append")
            await told(self._reservations.confirm(ready.name, event.id, event.fingerprint, report.timestamp_ms))
            reach("api.after_confirm")
        return Admitted(event, report)


def _first_of_each_key(ready: dict[int, _Ready]) -> tuple[list[int], list[int]]:
    """(places of the first event of each dedup key and of those without one, places of the others), in order."""
    seen: set[str] = set()
    first: list[int] = []
    later: list[int] = []
    for place, item in ready.items():
        (later if item.name in seen else first).append(place)
        if item.name is not None:
            seen.add(item.name)
    return first, later


def _record_headers(event: Ingested, context: Context) -> Headers:
    return (
        (codec.HEADER_EVENT_ID, event.id.encode()),
        *codec.STANDARD_HEADERS,
        (codec.HEADER_REQUEST_ID, context.request_id.encode()),
        (codec.HEADER_TRACEPARENT, context.trace.traceparent.encode()),
    )
