"""The inbox fold: accepted events become rows, in log order, each once.

An event's position is that of its first accepted copy, in the topic generation in which it was accepted: to be moved to a later one
changes nothing of its row. Copies that a crash of dedup left behind are not above the highest ingested
offset taken in their partition, and vanish here before they have an effect.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import psycopg

from projections.columns import columns
from projections.copying import copy_rows
from projections.fold import Connection, Decoded, Fold, Rows, Table, decoder
from projections.offsets import generation, moving
from runtime.sql import load
from schemas import codec
from schemas.events import Accepted, First
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED


class Row(NamedTuple):
    """A row of `inbox`."""

    organization: str
    mode: str
    generation: int
    position: int
    partition: int
    event_id: str
    type: str
    subject: str | None
    occurred_at: str | None
    received_at_ms: int
    appended_at_ms: int
    ingested_offset: int
    content_type: str
    payload: bytes
    payload_sha256: bytes
    base64: bool
    cloudevent: str | None
    encoding: str


_COLUMNS: Final = Row._fields
#: What COPY is told of the columns, in the order of `copy_inbox`, and of those of `unacked`.
_TYPES: Final = (
    "text", "text", "int4", "int8", "int4", "text", "text", "text", "text", "int8", "int8", "int8", "text", "bytea", "bytea", "bool",
    "text", "text",
)  # fmt: skip
_UNACKED_TYPES: Final = ("text", "text", "int4", "int8", "text", "text")
#: Rows from which COPY is cheaper, although it takes some more round trips than one INSERT for each table.
COPY_ROWS_MIN: Final = 64


def fold(partition: int, records: list[tuple[Record, Accepted]], ingested_high: int) -> tuple[list[Row], int]:
    """Rows of a batch and the highest ingested offset after it, given the one before it."""
    rows, current = [], generation()
    for record, accepted in records:
        if accepted.ingested.offset <= ingested_high:
            continue
        ingested_high = accepted.ingested.offset
        event = accepted.event
        payload = bytes(event.payload)
        at = (current, record.offset, partition, ingested_high) if (first := accepted.first) is None else _place(first)
        rows.append(
            Row(
                event.organization, event.mode, *at[:3], event.id, event.type, event.subject, event.occurred_at, event.received_at_ms,
                accepted.ingested.appended_at_ms, at[3], event.content_type, payload, hashlib.sha256(payload).digest(), event.base64,
                None if event.cloudevent is None else codec.encode_attributes(event.cloudevent), event.encoding,
            )
        )  # fmt: skip
    return rows, ingested_high


def _place(first: First) -> tuple[int, int, int, int]:
    return first.generation, first.offset, first.partition, first.ingested_offset


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, EVENTS_ACCEPTED, partition, old, new) as position:
        rows, position.ingested_high = fold(partition, decoded.records, position.ingested_high)
        if len(rows) < COPY_ROWS_MIN or not await copy(connection, rows):
            await insert(connection, rows)


async def insert(connection: Connection, rows: list[Row]) -> None:
    """Write rows inside a transaction that holds the partition's lock, whichever of them are there already."""
    if rows:
        values = columns(_COLUMNS, rows)
        await connection.execute(load("projections", "insert_inbox"), values)
        await connection.execute(load("projections", "insert_unacked"), values)


async def copy(connection: Connection, rows: list[Row]) -> bool:
    """The same for rows of which none is there and none is below its organization's mark. False, and nothing is written, where one is.

    That is rare: past the highest ingested offset only a second accepted record of the same event finds its row there, and retention passes
    what has been here for long.
    """
    asked = columns(("organization", "mode", "event_id"), ((row.organization, row.mode, row.event_id) for row in rows))
    acked: set[tuple[str, str, str]] = set()
    for organization, mode, event_id, passed in await (await connection.execute(load("projections", "told_of"), asked)).fetchall():
        if passed:
            return False
        acked.add((organization, mode, event_id))
    try:
        async with connection.transaction():
            await copy_rows(connection, load("projections", "copy_inbox"), _TYPES, rows)
            unacked = (
                (row.organization, row.mode, row.generation, row.position, row.event_id, row.type)
                for row in rows
                if not acked or (row.organization, row.mode, row.event_id) not in acked
            )
            await copy_rows(connection, load("projections", "copy_unacked"), _UNACKED_TYPES, unacked)
    except psycopg.errors.UniqueViolation:
        return False
    return True


def rows_of(partition: int, decoded: Decoded, ingested_high: int) -> tuple[list[Rows], int]:
    rows, high = fold(partition, decoded.records, ingested_high)
    return [Rows("inbox", _COLUMNS, [*rows])], high


TABLES: Final = (
    Table(
        "inbox", EVENTS_ACCEPTED, "position", key=("generation", "position"), once=("organization", "event_id"),
        order=("generation", "position"), keep="keep_first_in_inbox",
    ),
    Table(
        "unacked", EVENTS_ACCEPTED, "position", key=("generation", "position"), at_offset="unacked_at_offset", derive="derive_unacked",
    ),
    Table("removed", EVENTS_ACCEPTED, "position", key=("generation",)),
)  # fmt: skip
FOLD: Final = Fold(EVENTS_ACCEPTED, decoder(codec.accepted), write, TABLES, rows_of)
