"""What a reader asks for, as answers: pages of the inbox, acknowledgements, what became of an event. Knows no HTTP but its problems."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
import psycopg_pool
from confluent_kafka import KafkaException
from msgspec import Raw

from access.changes import Owner as EndpointOwner
from access.data_keys import DataKeys
from access.endpoints import NOT_THERE, is_or_was_of
from access.times import iso, rfc3339
from projections import acks, cursors, endpoint_attempts, opening, queries
from projections.cursors import Position
from projections.endpoint_attempts import Outcome
from projections.fold import Connection
from projections.offsets import lock_partition
from projections.pending import PendingLook
from projections.queries import Owner, Status
from runtime.clock import Clock
from runtime.kafka import AppendError, Bus
from runtime.postgres import Pool
from runtime.telemetry import event_line, log
from schemas import codec
from schemas.events import SCHEMA_VERSION, Ack
from schemas.ids import EventId, event_time_ms, parse_event_id
from schemas.keys import partition_of, record_key
from schemas.problems import NOT_APPENDED, NOT_FOUND, UNAVAILABLE, UNKNOWN_OUTCOME, ProblemError
from schemas.topics import FIRST_GENERATION, INBOX_ACKS

#: Pause between looks of a long poll, readers that may wait at once, and what an empty page suggests to a poller.
_LOOK_PAUSE_S: Final = 0.2
_WAITERS_MAX: Final = 256
_NEXT_POLL_MS: Final = 1_000
#: Payload bytes that end a page before its limit does.
_PAGE_BYTES_MAX: Final = 8 * 1024 * 1024


class Reading:
    """The read side. One per process."""

    def __init__(
        self, pool: Pool, bus: Callable[[], Bus], look: PendingLook, clock: Clock, keys: DataKeys, *, cursor_key: bytes, partitions: int
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._look = look
        self._clock = clock
        self._keys = keys
        self._cursor_key = cursor_key
        self._partitions = partitions
        self._waiters = asyncio.Semaphore(_WAITERS_MAX)

    async def page(
        self, owner: Owner, *, status: Status, event_type: str | None, cursor: str | None, limit: int, wait_s: float
    ) -> dict[str, Any]:
        """A page as the answer's document; payloads are `msgspec.Raw`. Raises the problems `invalid-cursor` and `unavailable`."""
        bound = (owner.organization, owner.mode, status, event_type or "")
        after = await self._begin(owner, cursor, bound)
        deadline_s = self._clock.monotonic_s() + wait_s
        async with self._waiters:
            while True:
                async with self._connection() as connection:
                    found = await queries.page(connection, owner, status, event_type, after, limit=limit, bytes_max=_PAGE_BYTES_MAX)
                    shown = await opening.page(connection, self._keys, owner, found.items)
                truncated = None if cursor in (None, "now") else _missed(after, found.removed)
                if found.items or truncated or self._clock.monotonic_s() >= deadline_s:
                    break
                await asyncio.sleep(_LOOK_PAUSE_S)
        if found.items:
            last = found.items[-1]
            after = Position(last.generation, last.partition, last.position)
        elif found.removed is not None and _is_behind(found.removed, after):
            after = found.removed  # nothing is left up to there: a gap is told of once
        return {
            "events": [_item(item, erased) for item, erased in shown],
            "next_cursor": cursors.encode(after, self._cursor_key, *bound),
            "has_more": found.more,
            "truncated": truncated,
            "next_poll_ms": 0 if found.more else _NEXT_POLL_MS,
        }

    async def _begin(self, owner: Owner, cursor: str | None, bound: tuple[str, ...]) -> Position:
        partition = partition_of(record_key(owner.organization), self._partitions)
        if cursor is None:
            return Position(FIRST_GENERATION, partition, -1)
        if cursor != "now":
            return cursors.decode(cursor, self._cursor_key, *bound)
        async with self._connection() as connection:
            newest = await queries.newest(connection, owner)
        return Position(FIRST_GENERATION, partition, -1) if newest is None else Position(newest[0], partition, newest[1])

    async def event(self, owner: Owner, text: str) -> dict[str, Any]:
        """What became of an event. Raises the problems `not-found` (unknown and foreign ids alike) and `unavailable`."""
        event_id = parse_event_id(text)
        if event_id is None:
            raise _unknown_event()
        partition = partition_of(record_key(owner.organization), self._partitions)
        async with self._connection() as connection:
            # Read first: what the inbox takes while we look is then found there, or in the log above it.
            high = await queries.ingested_high(connection, partition)
            folded = await self._folded(connection, owner, event_id)
        if folded is not None:
            return folded
        try:
            pending = await self._look.find(owner, event_id, high)
        except KafkaException as error:
            raise _unavailable(error) from error
        if pending is not None:
            return {"id": event_id, "status": pending}
        # A duplicate below what the inbox has taken may have been folded meanwhile: the two folds go at their own pace.
        async with self._connection() as connection:
            folded = await self._folded(connection, owner, event_id)
            kept_from = await queries.kept_from(connection, owner) if folded is None else None
        if folded is None:
            raise _unknown_event(event_id, kept_from)
        return folded

    async def _folded(self, connection: Connection, owner: Owner, event_id: EventId) -> dict[str, Any] | None:
        """What the folds know of an event."""
        found = await queries.find_event(connection, owner, event_id)
        if found is not None:
            attempts = await queries.find_attempts(connection, owner, event_id)
            held = await queries.find_held(connection, owner, event_id)
            found, erased = await opening.event(connection, self._keys, owner, event_id, found)
            return _accepted(event_id, found, attempts, held, erased=erased)
        lost = await queries.find_duplicate(connection, owner, event_id)
        if lost is None:
            return None
        return {
            "id": event_id, "status": lost.kind, "original_id": lost.original_id, "type": lost.type,
            "ingested": {"partition": lost.partition, "offset": lost.ingested_offset, "appended_at": rfc3339(lost.appended_at_ms)},
        }  # fmt: skip

    async def ack(self, owner: Owner, ids: list[str], request_headers: list[tuple[str, bytes | None]]) -> dict[str, Any]:
        """Acknowledge: log first, then exactly what the fold will write, then the answer. All of a call or nothing."""
        wanted = list(dict.fromkeys(ids))
        async with self._connection() as connection:
            known = await queries.ackable(connection, owner, [text for text in wanted if parse_event_id(text) is not None])
        fresh = [text for text in wanted if known.get(text) is False]
        if fresh:
            await self._append_ack(owner, [EventId(text) for text in fresh], request_headers)
        results = [{"id": text, "status": "acknowledged" if text in known else "unknown"} for text in wanted]
        return {
            "acknowledged": sum(text in known for text in wanted),
            "failed": sum(text not in known for text in wanted),
            "results": results,
        }

    async def _append_ack(self, owner: Owner, ids: list[EventId], headers: list[tuple[str, bytes | None]]) -> None:
        record = Ack(v=SCHEMA_VERSION, organization=owner.organization, mode=owner.mode, ids=ids)
        try:
            report = await self._bus().send(
                INBOX_ACKS, codec.encode(record), record_key(owner.organization), headers=[*codec.STANDARD_HEADERS, *headers]
            )
        except AppendError as error:
            problem = NOT_APPENDED if error.outcome == "not_appended" else UNKNOWN_OUTCOME
            raise ProblemError(
                problem, "The acknowledgement is not confirmed. Send it again: acknowledging twice changes nothing.",
                headers={"Retry-After": "2"}, members={"outcome": error.outcome},
            ) from error  # fmt: skip
        rows = [acks.Row(owner.organization, owner.mode, event_id, report.offset, report.timestamp_ms) for event_id in sorted(ids)]
        try:
            async with self._connection() as connection, connection.transaction():
                await lock_partition(connection, report.partition)
                await acks.apply(connection, report.partition, rows)
        except ProblemError:
            # It is in the log, so it holds; the fold writes it. The caller is told that it cannot be seen yet.
            log.warning("ack.not_written_yet", partition=report.partition, offset=report.offset)
        event_line(
            "inbox.acknowledged", organization=owner.organization, mode=owner.mode, count=len(ids), partition=report.partition,
            offset=report.offset, **{name.replace("-", "_"): (value or b"").decode(errors="replace") for name, value in headers},
        )  # fmt: skip

    async def attempts(
        self, owner: Owner, endpoint: str, outcome: Outcome | None, *, round_id: str | None, before: int, limit: int
    ) -> dict[str, Any]:
        """A page of the attempts at an endpoint as the answer's document. Raises the problems `not-found` and `unavailable`."""
        async with self._connection() as connection:
            page = await endpoint_attempts.page(
                connection, self._keys, owner, endpoint, outcome, round_id=round_id, before=before, limit=limit
            )
        if page is None:
            raise _unknown_endpoint()
        return page

    async def held(self, owner: Owner, endpoint: str) -> dict[str, Any]:
        """What an endpoint missed while it was disabled. Raises the problems `not-found` and `unavailable`."""
        async with self._connection() as connection:
            if not await is_or_was_of(connection, EndpointOwner(owner.organization, owner.mode), endpoint):
                raise _unknown_endpoint()
            found = await queries.held(connection, owner, endpoint)
        return {"held": found.events, "first_event_id": found.first_event_id, "last_event_id": found.last_event_id}

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> ProblemError:
    log.warning("read.unavailable", error=str(error).splitlines()[:1])
    return ProblemError(UNAVAILABLE, "What was asked for cannot be read right now. Try again in a moment.", headers={"Retry-After": "2"})


def _missed(after: Position, removed: Position | None) -> dict[str, Any] | None:
    """What retention took behind a cursor: positions from the first after it to the last that is gone, which may be of a later generation.
    Some in between may be there yet."""
    if removed is None or not _is_behind(removed, after):
        return None
    return {"first": after._replace(offset=after.offset + 1)._asdict(), "last": removed._asdict()}


def _is_behind(position: Position, after: Position) -> bool:
    """In the order of an organization's rows, whatever partitions they were in."""
    return (position.generation, position.offset) > (after.generation, after.offset)


def _unknown_event(event_id: EventId | None = None, kept_from: EventId | None = None) -> ProblemError:
    if event_id is not None and kept_from is not None and event_id < kept_from:
        since = rfc3339(event_time_ms(kept_from))
        return ProblemError(
            NOT_FOUND, f"Events received before {since} are no longer kept for this organization and mode: "
            "if this was one, retention took it.",
            members={"kept_from": since},
        )  # fmt: skip
    return ProblemError(NOT_FOUND, "There is no such event. Check the id, and that the key is of the right organization and mode.")


def _unknown_endpoint() -> ProblemError:
    return ProblemError(NOT_FOUND, f"{NOT_THERE.capitalize()}.")


def _item(item: queries.Item, erased: bool) -> dict[str, Any]:
    return {
        "id": item.event_id,
        "type": item.type,
        "subject": item.subject,
        "occurred_at": item.occurred_at,
        "received_at": rfc3339(item.received_at_ms),
        "content_type": item.content_type,
        "status": item.delivery,
        "ack": None if item.acked_at_ms is None else {"acked_at": rfc3339(item.acked_at_ms)},
        "position": {"generation": item.generation, "partition": item.partition, "offset": item.position},
        "cloudevent": None if item.cloudevent is None else Raw(item.cloudevent.encode()),
        "erased": erased,
        "data_base64" if item.base64 else "payload": Raw(item.payload),
    }


def _state(rows: list[queries.Attempt]) -> dict[str, Any]:
    """What a delivery has come to, and the attempt that is to come: success is final, else the last round's last attempt decides."""
    if any(row.outcome == "delivered" for row in rows):
        return {"state": "delivered", "next_attempt": None}
    last = rows[-1]
    if last.attempt is None:
        return {"state": "planned", "next_attempt": {"attempt": 1, "not_before": None}}
    if last.next == "retry":
        return {"state": "retrying", "next_attempt": {"attempt": last.attempt + 1, "not_before": iso(last.next_at_ms)}}
    return {"state": "dead", "next_attempt": None}


def _accepted(event_id: EventId, found: queries.Event, rows: list[queries.Attempt], held: list[str], *, erased: bool) -> dict[str, Any]:
    deliveries: dict[str, list[dict[str, Any]]] = {}
    by_endpoint: dict[str, list[queries.Attempt]] = {}
    for row in rows:
        by_endpoint.setdefault(row.endpoint_id, []).append(row)
        attempts = deliveries.setdefault(row.endpoint_id, [])
        if row.attempt is not None and row.started_at_ms is not None:
            attempts.append(
                {
                    "attempt": row.attempt, "outcome": row.outcome, "started_at": rfc3339(row.started_at_ms),
                    "duration_ms": row.duration_ms,
                    "status": row.status, "error": row.error, "worker": row.worker, "next": row.next,
                    "next_at": iso(row.next_at_ms), "dead_reason": row.dead_reason, "round": row.round, "cause": row.cause,
                }
            )  # fmt: skip
    return {
        "id": event_id,
        "status": "accepted",
        "type": found.type,
        "subject": found.subject,
        "occurred_at": found.occurred_at,
        "received_at": rfc3339(found.received_at_ms),
        "payload_bytes": None if erased else found.payload_bytes,
        "payload_sha256": None if erased else found.payload_sha256,
        "erased": erased,
        "ingested": {"partition": found.partition, "offset": found.ingested_offset, "appended_at": rfc3339(found.appended_at_ms)},
        "accepted": {"generation": found.generation, "partition": found.partition, "offset": found.position},
        "ack": None if found.acked_at_ms is None else {"acked_at": rfc3339(found.acked_at_ms), "offset": found.ack_offset},
        "deliveries": [
            {"endpoint_id": endpoint, **_state(by_endpoint[endpoint]), "attempts": attempts} for endpoint, attempts in deliveries.items()
        ],
        "held": held,
    }
