"""Many events of one request on their way into the log: what can be asked or sent for all of them at once is.

Each item has an outcome of its own, and one that fails disturbs no other. The steps and their order are those of `ingest.admission`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from access.limits import refused
from ingest.accept import Draft
from ingest.admission import Admission, Admitted
from ingest.append import unknown
from ingest.arrivals import Arrival, first_of_each_key, record_headers
from ingest.caller import Caller, too_slow_to_check
from ingest.idempotency import Confirmed, Wanted
from runtime import crashpoints
from runtime.kafka import Report
from runtime.metrics import RESERVATIONS
from schemas import codec
from schemas.events import Ingested
from schemas.problems import ProblemError

#: Bytes of a batch read, and events of it sent, before the event loop looks at everybody else.
_BYTES_AT_ONCE: Final = 32_768
_EVENTS_AT_ONCE: Final = 100

Outcome = Admitted | ProblemError


class BatchAdmission(Admission):
    """`Admission`, for many events too."""

    async def many(self, caller: Caller, items: Sequence[bytes], read: Callable[[bytes], Draft]) -> list[Outcome]:
        """What became of each item, in order; one that fails disturbs no other. Appended in the order given.

        Raises the problems of the whole call: a quota that grants nothing, a key that was revoked meanwhile.
        """
        outcomes: dict[int, Outcome] = {}
        arrivals: dict[int, Arrival] = {}
        try:
            with caller.within(too_slow_to_check):
                await self._read(caller, items, read, arrivals, outcomes)
                if caller.principal.encryption:
                    await self._seal_under_keys(caller, arrivals.values())
                first, later = first_of_each_key(arrivals)
                await self._reserve_all([arrivals[place] for place in first])
                await self._key_still_valid(caller)
                outcomes.update(await self._conform_no_more(caller, arrivals))
        except ProblemError:
            await asyncio.gather(*(self._let_go(arrival) for arrival in arrivals.values()))
            raise
        first, later = ([place for place in places if place not in outcomes] for places in (first, later))
        # What waits for another request holds up nobody but what follows under the same key.
        waiting = {arrivals[place].name: place for place in first if arrivals[place].pending}
        behind = [place for place in later if arrivals[place].name in waiting]
        free = [place for place in later if arrivals[place].name not in waiting]
        now = {place: arrivals[place] for place in first if not arrivals[place].pending}
        outcomes.update(await self._append_all(caller, now))
        for places in (sorted([*waiting.values(), *free]), behind):
            # Tasks begin in the order they are made, so records are sent in it.
            answers = await asyncio.gather(*(self._item(caller, arrivals[place]) for place in places))
            outcomes.update(zip(places, answers, strict=True))
        return [outcomes[place] for place in range(len(items))]

    async def _read(
        self,
        caller: Caller,
        items: Sequence[bytes],
        read: Callable[[bytes], Draft],
        arrivals: dict[int, Arrival],
        outcomes: dict[int, Outcome],
    ) -> None:
        """Each item of a batch by its place: into `arrivals`, or into `outcomes` with its problem. Raises as `many` does."""
        allowance = await self.count(caller, len(items))
        if not allowance.granted:
            raise refused(allowance)
        bytes_read = 0
        for place, item in enumerate(items):
            try:
                if place >= allowance.granted:
                    raise refused(allowance)
                draft = read(item)
                await self._conforms(caller, draft.type, draft.payload)
                arrivals[place] = self._arrival(caller, draft)
            except ProblemError as error:
                outcomes[place] = error
            bytes_read += len(item)
            if bytes_read >= _BYTES_AT_ONCE:
                bytes_read = 0
                await asyncio.sleep(0)

    async def _reserve_all(self, arrivals: Sequence[Arrival]) -> None:
        """As `_reserve`, for the first event of each key."""
        keyed = [arrival for arrival in arrivals if arrival.name is not None]
        if not keyed:
            return
        for arrival in keyed:
            arrival.asking()
        wanted = [Wanted(one.name or "", one.event.id, one.event.fingerprint, one.owner) for one in keyed]
        for arrival, held in zip(keyed, await self._reservations.reserve_all(wanted), strict=True):
            self._reserved(arrival, held)

    async def _conform_no_more(self, caller: Caller, arrivals: Mapping[int, Arrival]) -> dict[int, ProblemError]:
        """Items that a schema which came between refuses, by place. Raises the problems of a key that is not valid any more."""
        refusals: dict[int, ProblemError] = {}
        for place, arrival in arrivals.items():
            try:
                await self._still_conforms(caller, arrival)
            except ProblemError as error:
                refusals[place] = error
                await self._let_go(arrival)
        return refusals

    async def _append_all(self, caller: Caller, arrivals: Mapping[int, Arrival]) -> dict[int, Outcome]:
        """As `_append`, for events whose keys are settled, by place: all are sent, in order, before the first report is waited for."""
        outcomes: dict[int, Outcome] = {}
        sent: dict[int, tuple[Ingested, asyncio.Future[Report]]] = {}
        for number, (place, arrival) in enumerate(arrivals.items(), 1):
            try:
                event = arrival.to_append(self._window_s)
                if crashpoints.armed and arrival.name is not None:
                    crashpoints.reach("batch.after_reserve")
                sent[place] = event, self._appender.send(event.organization, codec.encode(event), record_headers(event, caller.context))
            except ProblemError as error:
                outcomes[place] = error
            if not number % _EVENTS_AT_ONCE:
                await asyncio.sleep(0)
        try:
            with caller.within(unknown):  # what was sent cannot be taken back
                for place, (event, future) in sent.items():
                    try:
                        outcomes[place] = Admitted(event, await self._appender.confirmed(future))
                    except ProblemError as error:
                        outcomes[place] = error
        except ProblemError as error:
            outcomes.update((place, error) for place in sent if place not in outcomes)
        for place, arrival in arrivals.items():
            outcome = outcomes[place]
            if isinstance(outcome, ProblemError) and outcome.members.get("outcome") != "unknown":
                await self._let_go(arrival)
        await self._confirm_all([(arrivals[place], outcome) for place, outcome in outcomes.items() if isinstance(outcome, Admitted)])
        return outcomes

    async def _confirm_all(self, admitted: Sequence[tuple[Arrival, Admitted]]) -> None:
        confirmed = [
            Confirmed(arrival.name, one.event.id, one.event.fingerprint, one.report.timestamp_ms)
            for arrival, one in admitted
            if arrival.name is not None
        ]
        if not confirmed:
            return
        for _ in confirmed if crashpoints.armed else ():
            crashpoints.reach("batch.after_append")
        if not_told := await self._reservations.confirm_all(confirmed):
            RESERVATIONS.tally["not_told"] += not_told
        for _ in confirmed if crashpoints.armed else ():
            crashpoints.reach("batch.after_confirm")

    async def _item(self, caller: Caller, arrival: Arrival) -> Outcome:
        """One that waits for another request, or for another item of its batch."""
        try:
            if arrival.pending or (arrival.name is not None and not arrival.asked):
                with caller.item_within(too_slow_to_check):
                    if not arrival.asked:  # another item of the batch came first with its key
                        await self._reserve(arrival)
                        await self._still_valid(caller, arrival)
                    await self._settle(caller, arrival)
            event = arrival.to_append(self._window_s)
        except ProblemError as error:
            await self._let_go(arrival)
            return error
        try:
            return await self._append(caller, arrival, event, caller.item_within)
        except ProblemError as error:
            return error
