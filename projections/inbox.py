"""The inbox fold: accepted events become rows, in log order, each once.

An event's position is that of its first accepted copy. Copies that a crash of dedup left behind are not above the highest ingested
offset taken in their partition, and vanish here before they have an effect.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import psycopg

from projections.columns import columns
from projections.copying import copy_rows
from projections.fold import Connection, Decoded, Fold, Rows, Table, decoder
from projections.offsets import moving
from runtime.sql import load
from schemas import codec
from schemas.events import Accepted
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED, GENERATION


class Row(NamedTuple):
    """A row of `inbox`, without what is the same for a whole batch (generation, partition)."""

    organization: str
    mode: str
    position: int
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
#: What COPY is told of the columns, with generation and partition at the end as in `copy_inbox`, and of those of `unacked`.
_TYPES: Final = (
    "text", "text", "int8", "text", "text", "text", "text", "int8", "int8", "int8", "text", "bytea", "bytea", "bool", "text",
    "text", "int4", "int4",
)  # fmt: skip
_UNACKED_TYPES: Final = ("text", "text", "int4", "int8", "text", "text")
#: Rows from which COPY is cheaper, although it takes some more round trips than one INSERT for each table.
COPY_ROWS_MIN: Final = 64


def fold(records: list[tuple[Record, Accepted]], ingested_high: int) -> tuple[list[Row], int]:
    """Rows of a batch and the highest ingested offset after it, given the one before it."""
    rows = []
    for record, accepted in records:
        if accepted.ingested.offset <= ingested_high:
            continue
        ingested_high = accepted.ingested.offset
        event = accepted.event
        payload = bytes(event.payload)
        rows.append(
            Row(
                event.organization, event.mode, record.offset, event.id, event.type, event.subject, event.occurred_at, event.received_at_ms,
                accepted.ingested.appended_at_ms, accepted.ingested.offset, event.content_type, payload, hashlib.sha256(payload).digest(),
                event.base64, None if event.cloudevent is None else codec.encode_attributes(event.cloudevent),
                event.encoding,
            )
        )  # fmt: skip
    return rows, ingested_high


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, EVENTS_ACCEPTED, partition, old, new) as position:
        rows, position.ingested_high = fold(decoded.records, position.ingested_high)
        if len(rows) < COPY_ROWS_MIN or not await copy(connection, partition, rows):
            await insert(connection, partition, rows)


async def insert(connection: Connection, partition: int, rows: list[Row]) -> None:
    """Write rows inside a transaction that holds the partition's lock, whichever of them are there already."""
    if rows:
        values = {**columns(_COLUMNS, rows), "generation": GENERATION, "partition": partition}
        await connection.execute(load("projections", "insert_inbox"), values)
        await connection.execute(load("projections", "insert_unacked"), values)


async def copy(connection: Connection, partition: int, rows: list[Row]) -> bool:
    """The same for rows of which none is there and none is below its organization's mark. False, and nothing is written, where one is.

    That is rare: past the highest ingested offset only a second accepted record of the same event finds its row there, and retention passes
    what has been here for long.
    """
    told = await connection.execute(load("projections", "told_of"), columns(_COLUMNS[:4], (row[:4] for row in rows)))
    acked: set[tuple[str, str, str]] = set()
    for organization, mode, event_id, passed in await told.fetchall():
        if passed:
            return False
        acked.add((organization, mode, event_id))
    try:
        async with connection.transaction():
            await copy_rows(connection, load("projections", "copy_inbox"), _TYPES, ((*row, GENERATION, partition) for row in rows))
            unacked = (
                (row.organization, row.mode, GENERATION, row.position, row.event_id, row.type)
                for row in rows
                if not acked or (row.organization, row.mode, row.event_id) not in acked
            )
            await copy_rows(connection, load("projections", "copy_unacked"), _UNACKED_TYPES, unacked)
    except psycopg.errors.UniqueViolation:
        return False
    return True


def rows_of(partition: int, decoded: Decoded, ingested_high: int) -> tuple[list[Rows], int]:
    rows, high = fold(decoded.records, ingested_high)
    return [Rows("inbox", (*_COLUMNS, "generation", "partition"), [(*row, GENERATION, partition) for row in rows])], high


TABLES: Final = (
    Table(
        "inbox", EVENTS_ACCEPTED, "position", key=("generation", "position"), once=("organization", "event_id"),
        keep="keep_first_in_inbox",
    ),
    Table(
        "unacked", EVENTS_ACCEPTED, "position", key=("generation", "position"), at_offset="unacked_at_offset", derive="derive_unacked",
    ),
    Table("removed", EVENTS_ACCEPTED, "position", key=("generation",)),
)  # fmt: skip
FOLD: Final = Fold(EVENTS_ACCEPTED, decoder(codec.accepted), write, TABLES, rows_of)
