"""The fold of events that lost to an earlier one under their dedup key: what a caller of `GET /events/{id}` is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.columns import columns
from projections.fold import Connection, Decoded, Fold, Table, decoder
from projections.offsets import moving
from runtime.sql import load
from schemas import codec
from schemas.events import Duplicate
from schemas.records import Record
from schemas.topics import EVENTS_DUPLICATES, EVENTS_INGESTED


class Row(NamedTuple):
    """A row of `duplicates`, without its partition."""

    organization: str
    mode: str
    event_id: str
    type: str
    original_id: str
    kind: str
    ingested_offset: int
    appended_at_ms: int


def fold(records: Iterable[tuple[Record, Duplicate]]) -> list[Row]:
    """The first loss of each event in a batch."""
    first: dict[tuple[str, str], Row] = {}
    for _, lost in records:
        row = Row(
            lost.organization,
            lost.mode,
            lost.id,
            lost.type,
            lost.original_id,
            lost.kind,
            lost.ingested.offset,
            lost.ingested.appended_at_ms,
        )
        first.setdefault((lost.organization, lost.id), row)
    return [first[key] for key in sorted(first)]


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, EVENTS_DUPLICATES, partition, old, new):
        if rows := fold(decoded.records):
            await connection.execute(load("projections", "insert_duplicates"), {**columns(Row._fields, rows), "partition": partition})


#: A row does not keep the offset that decides which loss was first, so it is not loaded but always written.
TABLES: Final = (Table("duplicates", EVENTS_INGESTED, "ingested_offset", key=("event_id",)),)
FOLD: Final = Fold(EVENTS_DUPLICATES, decoder(codec.duplicate), write, TABLES)
