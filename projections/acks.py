"""The ack fold: one call's ids become acknowledged together. The lowest position wins; an ack may come before its event's row.

The API writes an ack with `apply` as soon as its record is in the log, exactly as the fold will write it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.columns import columns
from projections.fold import Connection, Decoded, Fold, Rows, Table, decoder
from projections.offsets import moving
from runtime.sql import load
from schemas import codec
from schemas.events import Ack
from schemas.records import Record
from schemas.topics import INBOX_ACKS


class Row(NamedTuple):
    """A row of `acks`, without its partition. `position` is the offset of the ack record, `acked_at_ms` its log append time."""

    organization: str
    mode: str
    event_id: str
    position: int
    acked_at_ms: int


_COLUMNS: Final = Row._fields


def fold(records: Iterable[tuple[Record, Ack]]) -> list[Row]:
    """The first ack of each event in a batch."""
    first: dict[tuple[str, str, str], Row] = {}
    for record, ack in records:
        for event_id in ack.ids:
            first.setdefault(
                (ack.organization, ack.mode, event_id), Row(ack.organization, ack.mode, event_id, record.offset, record.timestamp_ms)
            )
    return [first[key] for key in sorted(first)]


async def apply(connection: Connection, partition: int, rows: list[Row]) -> None:
    """Write rows inside a transaction that holds the partition's lock."""
    if rows:
        values = {**columns(_COLUMNS, rows), "partition": partition}
        await connection.execute(load("projections", "upsert_acks"), values)
        await connection.execute(load("projections", "delete_unacked"), values)


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, INBOX_ACKS, partition, old, new):
        await apply(connection, partition, fold(decoded.records))


def rows_of(partition: int, decoded: Decoded, ingested_high: int) -> tuple[list[Rows], int]:
    return [Rows("acks", (*_COLUMNS, "partition"), [(*row, partition) for row in fold(decoded.records)])], ingested_high


TABLES: Final = (
    Table("acks", INBOX_ACKS, "position", key=("event_id",), once=("organization", "mode", "event_id"), at_offset="acks_at_offset"),
)
FOLD: Final = Fold(INBOX_ACKS, decoder(codec.ack), write, TABLES, rows_of)
