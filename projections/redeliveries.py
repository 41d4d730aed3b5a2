"""Deliveries that are asked for: what an endpoint missed is counted here, and rounds are asked for in the log. Delivery does the rest.

A request is audited first and appended then. If the log does not take it, the audit log has a call that led to nothing, never the other way
round.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import psycopg
import psycopg_pool
from msgspec import Raw

from access.changes import Owner as EndpointOwner
from access.times import iso
from projections.fold import Connection
from projections.queries import Owner
from runtime.clock import Clock
from runtime.kafka import AppendError, Bus, Headers
from runtime.postgres import Pool
from runtime.sql import load
from runtime.telemetry import log
from schemas import codec, ids, kept, keys
from schemas.deliveries import Cause, Recovery, Redelivery, RequestRecord
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, RESERVED_TYPES, SCHEMA_VERSION, TEST_TYPE, Ingested, is_reserved
from schemas.ids import EndpointId, EventId, OrganizationId, RoundId, parse_event_id
from schemas.problems import NOT_APPENDED, NOT_FOUND, UNAVAILABLE, UNKNOWN_OUTCOME, ProblemError
from schemas.topics import DELIVERIES_REQUESTS

#: Events that an endpoint may have missed which are looked at to count those it did.
COUNTED_MAX: Final = 5_000
#: The payload of a test that brings none.
TEST_PAYLOAD: Final = b'{"test":true}'
#: Of all that can be missed: what a uuid7 can say.
TIME_MAX_MS: Final = (1 << 48) - 1


class Missed(NamedTuple):
    """Deliveries that would be recovered, and when the event of the first was received. `more`: there may be more than were counted."""

    deliveries: int
    more: bool
    first_ms: int | None


class Redeliveries:
    """One per process."""

    def __init__(self, pool: Pool, bus: Callable[[], Bus], clock: Clock) -> None:
        self._pool = pool
        self._bus = bus
        self._clock = clock

    def new_round(self) -> RoundId:
        return ids.round_id(self._clock.now_ms(), os.urandom(ids.RANDOM_BYTES))

    def test_event(self, owner: Owner, kind: str, payload: bytes) -> Ingested:
        """An event that is in no topic but the request. `payload`: a slice of JSON; empty for the usual one."""
        now_ms, slice_ = self._clock.now_ms(), payload or TEST_PAYLOAD
        return Ingested(
            v=SCHEMA_VERSION, id=ids.event_id(now_ms, os.urandom(ids.RANDOM_BYTES)), organization=owner.organization, mode=owner.mode,
            type=kind, received_at_ms=now_ms, fingerprint=keys.fingerprint(kind, None, slice_), payload=Raw(slice_),
        )  # fmt: skip

    async def event(self, owner: Owner, text: str) -> Ingested:
        """An event of the inbox. Raises the problems `not-found` and `unavailable`."""
        event_id = parse_event_id(text)
        if event_id is not None:
            async with self._connection() as connection:
                values = {**owner._asdict(), "event_id": event_id}
                row = await (await connection.execute(load("projections", "event_in_inbox"), values)).fetchone()
            if row is not None:
                return kept.ingested(event_id, owner.organization, owner.mode, kept.Row._make(row))
        raise ProblemError(
            NOT_FOUND,
            "There is no such event in the inbox. Check the id; one that came just now is there in a moment, "
            "one that is older than your organization keeps is gone.",
        )

    async def missed(
        self,
        owner: Owner,
        endpoint: str,
        *,
        since_ms: int = 0,
        until_ms: int = TIME_MAX_MS,
        held: bool = True,
        event_id: EventId | None = None,
        left_out: Sequence[tuple[EventId, RoundId]] = (),
    ) -> Missed:
        """What a recovery would deliver now. Raises the problem `unavailable`."""
        begin, end = kept.range_of(since_ms, until_ms, event_id)
        values = {
            **owner._asdict(), "endpoint_id": endpoint, "since": begin, "until": end, "held": held, "limit": COUNTED_MAX,
            "left_events": [event for event, _ in left_out], "left_rounds": [round_id for _, round_id in left_out],
        }  # fmt: skip
        async with self._connection() as connection:
            row = await (await connection.execute(load("projections", "count_missed"), values)).fetchone()
        seen, deliveries, first = row or (0, 0, None)
        return Missed(deliveries, seen == COUNTED_MAX, None if first is None else ids.event_time_ms(first))

    async def missed_by(self, owner: EndpointOwner, endpoint: str) -> dict[str, Any] | None:
        """All that an endpoint missed, as it is shown; None if that is nothing, or cannot be read right now."""
        try:
            found = await self.missed(Owner(OrganizationId(owner.organization), owner.mode), endpoint)
        except ProblemError as error:
            log.warning("missed.unavailable", error=error.detail)
            return None
        if not found.deliveries:
            return None
        since = iso(found.first_ms)
        return {"deliveries": found.deliveries, "more": found.more, "since": since, "recover": f"/endpoints/{endpoint}/recover"}

    async def append(self, request: RequestRecord, headers: Headers) -> None:
        """Raises the problems `not-appended` and `outcome-unknown`."""
        try:
            key, carried = keys.record_key(request.organization), [*codec.STANDARD_HEADERS, *headers]
            await self._bus().send(DELIVERIES_REQUESTS, codec.encode(request), key, headers=carried)
        except AppendError as error:
            problem = NOT_APPENDED if error.outcome == "not_appended" else UNKNOWN_OUTCOME
            detail = "What was asked for is not in the log. Ask again." if error.outcome == "not_appended" else _UNKNOWN
            raise ProblemError(problem, detail, headers={"Retry-After": "2"}, members={"outcome": error.outcome}) from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            detail = "What the endpoint missed cannot be read right now. Try again in a moment."
            raise ProblemError(UNAVAILABLE, detail, headers={"Retry-After": "2"}) from error


_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)
_UNKNOWN: Final = "It is not known whether the log took what was asked for: look at the endpoint's attempts before asking again."


def check_test_type(kind: str) -> None:
    """Whether a test may have this type. Raises `ValueError`."""
    if not _TYPE.fullmatch(kind) or len(kind) > EVENT_TYPE_CHARS_MAX:
        raise ValueError(f"a type has 1 to {EVENT_TYPE_CHARS_MAX} letters, digits, - or _, in parts joined by dots")
    if is_reserved(kind) and kind != TEST_TYPE:
        raise ValueError(f"types that begin with {RESERVED_TYPES} are the service's own: choose another")


def redelivery(round_id: RoundId, cause: Cause, endpoint: EndpointId, event: Ingested) -> Redelivery:
    return Redelivery(
        v=SCHEMA_VERSION, round=round_id, cause=cause, organization=event.organization, mode=event.mode, event_id=event.id,
        endpoint_id=endpoint, event=Raw(codec.encode(event)),
    )  # fmt: skip


def recovery(round_id: RoundId, cause: Cause, owner: Owner, endpoint: EndpointId, *, since_ms: int, until_ms: int, **more: Any) -> Recovery:
    """`more`: `held`, `event_id`, `left_out` of `schemas.deliveries.Recovery`."""
    return Recovery(
        v=SCHEMA_VERSION, round=round_id, cause=cause, organization=owner.organization, mode=owner.mode, endpoint_id=endpoint,
        since_ms=since_ms, until_ms=until_ms, **more,
    )  # fmt: skip
