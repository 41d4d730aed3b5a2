"""Reads of the folds, as typed rows. Every statement names organization and mode: nothing here can show another's data."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from projections.cursors import Position
from projections.fold import Connection
from runtime.sql import load
from schemas.events import Encoding, Mode
from schemas.ids import EventId, OrganizationId
from schemas.topics import EVENTS_ACCEPTED

Status = Literal["unacked", "acked", "all"]


class Owner(NamedTuple):
    """Whose data is read."""

    organization: OrganizationId
    mode: Mode


class Item(NamedTuple):
    """One inbox event. `payload` is the slice as sent, with `base64` a JSON string of what is no JSON.

    `delivery` is its status over all endpoints, `acknowledged` once acked.
    """

    generation: int
    position: int
    partition: int
    event_id: str
    type: str
    subject: str | None
    occurred_at: str | None
    received_at_ms: int
    content_type: str
    payload: bytes
    base64: bool
    cloudevent: str | None
    encoding: Encoding
    acked_at_ms: int | None
    delivery: str


class Page(NamedTuple):
    """Events in order, whether there are more behind them, and the last position that retention took (None: it took none)."""

    items: list[Item]
    more: bool
    removed: Position | None = None


class Event(NamedTuple):
    """One accepted event, without its payload but for an encrypted one's envelope, of which size and digest are then."""

    generation: int
    partition: int
    position: int
    ingested_offset: int
    type: str
    subject: str | None
    occurred_at: str | None
    received_at_ms: int
    appended_at_ms: int
    payload_sha256: str
    payload_bytes: int
    acked_at_ms: int | None
    ack_offset: int | None
    encoding: Encoding
    envelope: bytes | None


class Attempt(NamedTuple):
    """One attempt at one endpoint; every field but the endpoint is None while none was made."""

    endpoint_id: str
    attempt: int | None
    outcome: str | None
    started_at_ms: int | None
    duration_ms: int | None
    status: int | None
    error: str | None
    worker: str | None
    next: str | None
    next_at_ms: int | None
    dead_reason: str | None
    round: str | None
    cause: str | None


class Held(NamedTuple):
    """How many events an endpoint missed while it was disabled, and the first and the last of them in the order of the log."""

    events: int
    first_event_id: str | None
    last_event_id: str | None


class Lost(NamedTuple):
    """What a dropped event lost to: `kind` is `duplicate` or `conflict`."""

    original_id: str
    kind: str
    partition: int
    ingested_offset: int
    appended_at_ms: int
    type: str


async def page(
    connection: Connection, owner: Owner, status: Status, event_type: str | None, after: Position, *, limit: int, bytes_max: int
) -> Page:
    """At most `limit` events after a position, in order: one statement. Never empty while there are any.

    A page also ends with the event whose payload brings it to `bytes_max`.
    """
    statement = load("projections", "page").replace(
        b"{positions}", load("projections", f"page_{status}" if event_type is None else f"page_{status}_of_type")
    )
    values = {
        **owner._asdict(),
        "type": event_type,
        "generation": after.generation,
        "offset": after.offset,
        "limit": limit,
        "bytes_max": bytes_max,
    }
    cursor = await connection.execute(statement, values, binary=True)
    rows = await cursor.fetchall()
    removed, rows = rows[0][-3:], [row for row in rows if row[0] is not None]
    items = [Item._make(row[:-4]) for row in rows]
    return Page(items, bool(rows) and rows[0][-4] > len(rows), None if removed[0] is None else Position._make(removed))


async def newest(connection: Connection, owner: Owner) -> tuple[int, int] | None:
    """(generation, offset) of the last event."""
    cursor = await connection.execute(load("projections", "newest_position"), owner._asdict())
    return await cursor.fetchone()


async def find_event(connection: Connection, owner: Owner, event_id: EventId) -> Event | None:
    row = await _one(connection, "find_event", owner, event_id)
    return None if row is None else Event._make(row)


async def find_attempts(connection: Connection, owner: Owner, event_id: EventId) -> list[Attempt]:
    cursor = await connection.execute(load("projections", "find_attempts"), {**owner._asdict(), "event_id": event_id})
    return [Attempt._make(row) for row in await cursor.fetchall()]


async def find_held(connection: Connection, owner: Owner, event_id: EventId) -> list[str]:
    """Endpoints that missed the event because they were disabled when it came."""
    cursor = await connection.execute(load("projections", "find_held"), {**owner._asdict(), "event_id": event_id})
    return [row[0] for row in await cursor.fetchall()]


async def find_duplicate(connection: Connection, owner: Owner, event_id: EventId) -> Lost | None:
    row = await _one(connection, "find_duplicate", owner, event_id)
    return None if row is None else Lost._make(row)


async def ackable(connection: Connection, owner: Owner, event_ids: list[str]) -> dict[str, bool]:
    """Ids that are events of `owner`, and whether each is acknowledged already. Unknown and foreign ids are not in it."""
    cursor = await connection.execute(load("projections", "ackable"), {**owner._asdict(), "ids": event_ids})
    return dict(await cursor.fetchall())


async def held(connection: Connection, owner: Owner, endpoint_id: str) -> Held:
    """What an endpoint of `owner` missed while it was disabled: of a foreign one, nothing."""
    cursor = await connection.execute(load("projections", "held_of"), {**owner._asdict(), "endpoint_id": endpoint_id})
    row = await cursor.fetchone()
    return Held(0, None, None) if row is None else Held._make(row)


async def ingested_high(connection: Connection, partition: int) -> int:
    """The highest ingested offset the inbox has taken from a partition, -1 before the first."""
    cursor = await connection.execute(load("projections", "ingested_high"), (EVENTS_ACCEPTED, partition))
    row = await cursor.fetchone()
    return -1 if row is None else int(row[0])


async def kept_from(connection: Connection, owner: Owner) -> EventId | None:
    """The lowest event id that retention leaves to `owner`; None where it has taken nothing."""
    row = await (await connection.execute(load("projections", "kept_from"), owner._asdict())).fetchone()
    return None if row is None else EventId(row[0])


async def _one(connection: Connection, name: str, owner: Owner, event_id: EventId) -> tuple[Any, ...] | None:
    cursor = await connection.execute(load("projections", name), {**owner._asdict(), "event_id": event_id})
    return await cursor.fetchone()
