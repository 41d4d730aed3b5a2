"""From a draft to an event in the log: schema, quota, reservation, append, confirmation. The order of effects is the promise.

A crash between any two steps leaves either nothing, or a reservation whose lease lapses, or an event in the log whose caller asks again
under the same key and is told its id. A request that is refused for any reason gives its reservation back. Knows no HTTP but its problems.
Many at once: `ingest.batches`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

from access.auth import Authenticator, key_of
from access.data_keys import DataKeys
from access.http import Context
from access.limits import Allowance, Limiter, refused
from ingest.accept import Draft
from ingest.append import Appender, unknown
from ingest.arrivals import Arrival, arrival_of, record_headers
from ingest.begun import Begun
from ingest.caller import Caller, reached, too_slow_to_check
from ingest.catalogue import Catalogue
from ingest.idempotency import Reservation, Reservations
from runtime import crashpoints
from runtime.clock import Clock
from runtime.deadlines import Deadlines, Within
from runtime.kafka import Report
from runtime.metrics import RESERVATIONS
from runtime.randomness import Randomness
from runtime.redis import RedisUnavailable
from runtime.settings import IngestSettings
from schemas import codec
from schemas.events import Ingested, Mode
from schemas.ids import EventId, OrganizationId
from schemas.problems import ProblemError

SCOPE: Final = "events:write"
_PAUSE_FIRST_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.1

_reservations: Final = RESERVATIONS.tally


class Admitted(NamedTuple):
    """An event that is in the log."""

    event: Ingested
    report: Report


Bound = Callable[[Callable[[], ProblemError]], Within]
#: Whether an event is in the log, whatever became of it there. Raises the problem `unavailable` where nobody can say.
InLog = Callable[[OrganizationId, Mode, EventId], Awaitable[bool]]


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
        data_keys: DataKeys,
        in_log: InLog,
    ) -> None:
        self._settings = settings
        self._window_s = int(settings.idempotency_window_s)
        self._clock = clock
        self._authenticator = authenticator
        self._limiter = limiter
        self._catalogue = catalogue
        self._reservations = reservations
        self._appender = appender
        self._data_keys = data_keys
        self._in_log = in_log
        self._deadlines = Deadlines()
        self._random = Randomness()

    async def caller(self, headers: Sequence[tuple[bytes, bytes]], address: str | None, context: Context, deadline_s: float) -> Caller:
        """Raises the problems of a key that is missing, not valid, limited, or without the scope."""
        key = key_of(headers)
        changes = self._authenticator.changes
        principal = self._authenticator.cached(key, address)
        if principal is None:
            with Within(self._deadlines, deadline_s, too_slow_to_check):
                principal = await self._authenticator.authenticate(key, address)
        return Caller(principal.require(SCOPE), key, address, changes, context, self._deadlines, deadline_s)

    async def count(self, caller: Caller, items: int) -> Allowance:
        """Count a request against its organization's quota, once."""
        if caller.allowance is None:
            caller.allowance = await self._counting(caller, items)
        return caller.allowance

    def _counting(self, caller: Caller, items: int) -> asyncio.Future[Allowance]:
        """Asked once; what was asked is in the next round trip, with the reservation."""
        if caller.counting is None or caller.counting.cancelled():
            caller.counting = self._limiter.ask(caller.principal, items)
        return caller.counting

    async def one(self, caller: Caller, draft: Draft) -> Admitted:
        """Raises `ProblemError`; a 503's `outcome` says whether the event may be in the log."""
        arrival = self._arrival(caller, draft)
        principal = caller.principal
        try:
            validators = self._catalogue.known(principal.organization, principal.mode)
            if validators is None or validators.has(draft.type):
                with caller.within(too_slow_to_check):
                    await self._conforms_now(caller, draft)
            if principal.encryption:
                await self._seal_if_granted(caller, arrival)
            # Redis has a time limit of its own, far below the request's. The quota is asked first; both travel together.
            counting = self._counting(caller, 1)
            if arrival.name is not None:
                await self._reserve(arrival)
            caller.allowance = await counting
            event = await self._cleared(caller, arrival, caller.allowance)
        except ProblemError:
            await self._let_go(arrival)
            raise
        return await self._append(caller, arrival, event, caller.within)

    async def _cleared(self, caller: Caller, arrival: Arrival, allowance: Allowance) -> Ingested:
        """After the answers of Redis: the event, once nothing speaks against its append. Raises `ProblemError`."""
        changes = self._authenticator.changes
        if not allowance.granted:
            raise refused(allowance)
        if arrival.pending or arrival.checked != changes or caller.changes != changes:
            with caller.within(too_slow_to_check):
                await self._still_valid(caller, arrival)
                await self._settle(caller, arrival)
        return arrival.to_append(self._window_s)

    def caller_of(self, begun: Begun) -> Caller:
        """Who asks, of a request that comes from the fast path."""
        key, changes = begun.key.decode("latin-1"), begun.arrival.checked
        caller = Caller(begun.principal, key, None, changes, begun.context, self._deadlines, begun.deadline_s)
        caller.allowance = begun.allowance
        return caller

    async def go_on(self, caller: Caller, begun: Begun) -> Admitted:
        """As `one`, from where the fast path left it."""
        arrival = begun.arrival
        try:
            if begun.error is not None:
                raise begun.error
            if begun.report is not None:
                return Admitted(arrival.event, begun.report)
            event = await self._cleared(caller, arrival, await self.count(caller, 1))
        except ProblemError as error:
            if error.members.get("outcome") != "unknown":
                await self._let_go(arrival)
            raise
        return await self._append(caller, arrival, event, caller.within)

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

    def _arrival(self, caller: Caller, draft: Draft) -> Arrival:
        return arrival_of(caller.principal, draft, self._clock.now_ms(), self._random, caller.changes)

    async def _still_valid(self, caller: Caller, arrival: Arrival) -> None:
        """After a Redis round trip and before the append: the key and the schema as that round trip left them. Raises their problems."""
        await self._key_still_valid(caller)
        await self._still_conforms(caller, arrival)

    async def _key_still_valid(self, caller: Caller) -> None:
        """Looked up again where another epoch was seen. All items of a batch share one look-up, and are refused by it alike."""
        if self._authenticator.changes == caller.changes:
            return
        async with caller.looking:
            changes = self._authenticator.changes
            if changes == caller.changes:
                return
            if caller.refusal is None:
                try:
                    caller.principal = (await self._authenticator.authenticate(caller.key, caller.address)).require(SCOPE)
                except ProblemError as error:
                    caller.refusal = error
            if caller.refusal is not None:
                raise caller.refusal
            caller.changes = changes  # only now: whoever comes meanwhile must not pass

    async def _still_conforms(self, caller: Caller, arrival: Arrival) -> None:
        if arrival.checked != (changes := self._authenticator.changes):
            await self._conforms(caller, arrival.event.type, bytes(arrival.event.payload))
            if arrival.key is not None or caller.principal.encryption:  # the key may have been erased, or encryption just asked for
                await self._seal_under_keys(caller, [arrival])
            arrival.checked = changes

    async def _seal_if_granted(self, caller: Caller, arrival: Arrival) -> None:
        """A key that is not at hand is read, or made: only for an event that the quota has room for. Raises `ProblemError`."""
        key = self._data_keys.at_hand(arrival.event.organization, arrival.event.subject)
        if key is not None:
            arrival.under(key)
            return
        allowance = await self.count(caller, 1)
        if not allowance.granted:
            raise refused(allowance)
        with caller.within(too_slow_to_check):
            await self._seal_under_keys(caller, [arrival])

    async def _seal_under_keys(self, caller: Caller, arrivals: Collection[Arrival]) -> None:
        """Give each the data key of its subject as it is now. Raises the problem `unavailable`: nothing is appended in clear instead."""
        subjects = {arrival.event.subject for arrival in arrivals}
        keys = await self._data_keys.of_subjects(caller.principal.organization, subjects)
        for arrival in arrivals:
            arrival.under(keys[arrival.event.subject])

    async def _reserve(self, arrival: Arrival) -> None:
        """Ask for the event's key. No answer for an event without one, and without Redis: then dedup decides from the log."""
        if arrival.name is None:
            return
        event = arrival.event
        arrival.asking()
        try:
            held = await self._reservations.reserve(arrival.name, event.id, event.fingerprint, arrival.owner)
        except RedisUnavailable:
            held = None
        self._reserved(arrival, held)

    @staticmethod
    def _reserved(arrival: Arrival, held: Reservation | None) -> None:
        arrival.answered(held)
        _reservations["without_redis" if held is None else held.outcome] += 1

    async def _settle(self, caller: Caller, arrival: Arrival) -> None:
        """Wait for another request under the same key, within half of the deadline, until the key is ours or taken."""
        pause_s = _PAUSE_FIRST_S
        deadline_s = self._clock.monotonic_s() + self._settings.request_deadline_s / 2
        while arrival.pending and self._clock.monotonic_s() < deadline_s:
            if arrival.name is not None and arrival.held is not None and arrival.held.outcome == "lapsed":
                await self._resolve(arrival.name, arrival.event, arrival.held.event_id)
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            await self._reserve(arrival)
            await self._still_valid(caller, arrival)

    async def _resolve(self, name: str, event: Ingested, held_id: EventId) -> None:
        """The key's request died, and what it had under it differs: another event, or the same one sealed under another data key.

        In the log, it has the key as if that had been told. Else the key is free, and what comes under it has its own id: should the other
        one turn up after all, dedup tells them apart, as it does without Redis.
        """
        in_log = await self._in_log(event.organization, event.mode, held_id)
        await reached(self._reservations.resolve(name, held_id, in_log=in_log))

    async def _let_go(self, arrival: Arrival) -> None:
        """Nothing was appended under this reservation by us, and nothing will be. Compared in Redis: what is another's stays."""
        if arrival.name is not None and arrival.may_hold:
            arrival.may_hold = False
            held_id = arrival.event.id if arrival.held is None else arrival.held.event_id
            await reached(self._reservations.release(arrival.name, held_id, arrival.owner))

    async def _append(self, caller: Caller, arrival: Arrival, event: Ingested, bounded: Bound) -> Admitted:
        """Append. What Redis is told afterwards is help for the next caller: not to have told it loses nothing, so nobody waits for it."""
        reserved(arrival)
        try:
            with bounded(unknown):  # what was sent cannot be taken back
                sent = self._appender.send(event.organization, codec.encode(event), record_headers(event, caller.context))
                report = await self._appender.confirmed(sent)
        except ProblemError as error:
            if error.members.get("outcome") == "not_appended":
                await self._let_go(arrival)
            raise
        if arrival.name is not None:
            appended()
            self._reservations.confirm(arrival.name, event.id, event.fingerprint, report.timestamp_ms, told)
        return Admitted(event, report)


def reserved(arrival: Arrival) -> None:
    """A place at which a test kills, on either way into the log: nothing was appended, and the key may be held."""
    if crashpoints.armed and arrival.name is not None:
        crashpoints.reach("api.after_reserve")


def appended() -> None:
    """The same for an event with a key that is in the log, of which Redis knows nothing yet."""
    if crashpoints.armed:
        crashpoints.reach("api.after_append")


def told(was: bool) -> None:
    """Whether Redis was told of an append."""
    if not was:
        _reservations["not_told"] += 1
    if crashpoints.armed:
        crashpoints.reach("api.after_confirm")
