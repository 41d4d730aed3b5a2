"""The fold of what operators decided: how far an organization's retention has come, and whose data keys are destroyed.

A mark is about ids of events, and every row about an event holds its id. So what is below a mark is a pure function of each record: this
fold deletes what is there, the others leave out what comes late (`… FROM retention` in their statements), and whatever order the topics
are folded in, the same rows stay. Each mark deletes in the one transaction that moves it; `triggers retention apply` moves marks in steps
that keep such a transaction short.

Decisions about dead letters and rejected records (`Dropped`) are read from the log, not folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb

from access.erasure import ACTOR_OF_THE_LOG
from projections.fold import Connection, Decoded, Fold, Table, decoder
from projections.offsets import moving
from runtime.sql import compose, load
from schemas import codec, ids
from schemas.ids import EventId
from schemas.lifecycle import Dropped, Erased, LifecycleRecord, RetentionMoved
from schemas.records import Record
from schemas.topics import LIFECYCLE

#: Tables with a row or more for each event, but for the inbox and its index. A rebuild may have some of them only.
_OF_EVENTS: Final = ("acks", "plans", "rounds", "attempts", "duplicates")


class Row(NamedTuple):
    """A row of `retention`, without its partition. `event_id`: the lowest id that stays."""

    organization: str
    mode: str
    position: int
    event_id: EventId


def first_id(before_ms: int) -> EventId:
    """The lowest id of an event made at `before_ms` (Unix milliseconds)."""
    return ids.event_id(before_ms, bytes(ids.RANDOM_BYTES))


def fold(records: Iterable[tuple[Record, LifecycleRecord]]) -> list[Row]:
    """The highest mark of each organization and mode in a batch, as its first record set it."""
    highest: dict[tuple[str, str], Row] = {}
    for record, entry in records:
        if isinstance(entry, RetentionMoved):
            row = Row(entry.organization, entry.mode, record.offset, first_id(entry.before_ms))
            known = highest.get(row[:2])
            if known is None or row.event_id > known.event_id:
                highest[row[:2]] = row
    return [highest[key] for key in sorted(highest)]


_of_organizations = decoder(codec.lifecycle)


def decode(partition: int, records: Sequence[Record]) -> Decoded:
    """As `decoder`; what is about one record of another topic has the key of that record, which may be nobody's, and is passed over."""
    return _of_organizations(partition, [record for record in records if not _is_drop(record)])


def _is_drop(record: Record) -> bool:
    try:
        return isinstance(codec.lifecycle.decode(record.value), Dropped)
    except codec.CodecError:
        return False


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, LIFECYCLE, partition, old, new):
        for row in fold(decoded.records):
            await _move(connection, partition, row)
        await _destroy(connection, decoded.records)


async def _destroy(connection: Connection, records: Iterable[tuple[Record, LifecycleRecord]]) -> None:
    """Data keys are in the control plane, which no topic fills. What the log says is erased is gone from it wherever this fold comes by:
    folding twice changes nothing, and a control plane older than an erasure loses the key again. Caches see the version within seconds.
    """
    gone = 0
    for _, entry in records:
        if isinstance(entry, Erased):
            values = {"organization": entry.organization, "ids": entry.keys}
            keys = (await connection.execute(load("access", "delete_data_keys"), values)).rowcount
            if keys:
                detail = Jsonb({"what": entry.what, "keys": keys, "again": True})
                told = {
                    "actor": ACTOR_OF_THE_LOG,
                    "action": "data.erased",
                    "organization": entry.organization,
                    "target": entry.organization,
                }
                await connection.execute(load("access", "insert_audit"), {**told, "detail": detail})
            gone += keys
    if gone:
        await connection.execute(load("access", "raise_revocation_version"))


async def _move(connection: Connection, partition: int, row: Row) -> None:
    values: dict[str, Any] = {**row._asdict(), "partition": partition}
    moved = await connection.execute(load("projections", "move_retention"), values)
    if moved.rowcount == 0:
        return  # it is as far already, and what was below it is gone
    # Given up half way it would only begin again. How much one mark takes is bounded where it is appended.
    await connection.execute(load("projections", "no_statement_timeout"))
    there = {name for (name,) in await (await connection.execute(load("projections", "tables_here"))).fetchall()}
    if "inbox" in there:
        await connection.execute(load("projections", "remove_from_unacked"), values)
        await connection.execute(load("projections", "remove_from_inbox"), values)
    for name in _OF_EVENTS:
        if name in there:
            await connection.execute(compose("projections", "remove_from", table=sql.Identifier(name)), values)


TABLES: Final = (Table("retention", LIFECYCLE, "position", key=("partition",)),)
FOLD: Final = Fold(LIFECYCLE, decode, write, TABLES)
