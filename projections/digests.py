"""Whether two schemas hold the same rows of a table, organization by organization, and where they do not.

A table is read as its folds wrote it (`Table.at_offset`), so what the API wrote ahead of them is no difference. Digests are made by
Postgres, over the binary form of whole rows in the order of their key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from psycopg import sql

from projections.fold import Connection, Table
from projections.offsets import generation
from runtime.sql import compose
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key

#: Differences of one table that are listed; all are counted.
LISTED_MAX: Final = 20
_ROWS_AT_ONCE: Final = 5_000

Kind = Literal["missing", "unknown", "changed"]


class Digest(NamedTuple):
    """Of one organization and mode's rows of a table."""

    rows: int
    sha256: bytes


class Difference(NamedTuple):
    """One row. `missing`: the log has it and the live table does not; `unknown`: the other way round; `changed`: not the same in `columns`.

    `position` is the offset in `topic` that the row names.
    """

    table: str
    organization: str
    mode: str
    event_id: str
    kind: Kind
    topic: str
    partition: int
    position: int
    columns: tuple[str, ...] = ()


@dataclass
class Compared:
    """One table: what is equal, and up to `LISTED_MAX` differences of all."""

    table: str
    organizations: int = 0
    rows: int = 0
    differences: int = 0
    listed: list[Difference] = field(default_factory=list)


async def compare(live: Connection, shadow: Connection, table: Table, partitions: int) -> Compared:
    """Both connections name their schema in `search_path`; `live` is in a transaction that sees one state all along."""
    ours, theirs = await asyncio.gather(_digests(live, table), _digests(shadow, table))
    found = Compared(table.name, len(theirs), sum(digest.rows for digest in theirs.values()))
    for owner in sorted(ours.keys() | theirs.keys()):
        if ours.get(owner) != theirs.get(owner):
            await _list(live, shadow, table, owner, found, partitions)
    return found


def _parts(table: Table) -> dict[str, sql.Composable]:
    rows: sql.Composable = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table.name))
    if table.at_offset is not None:
        rows = compose("projections", table.at_offset, generation=sql.Literal(generation()))
    return {"rows": rows, "key": sql.SQL(", ").join(map(sql.Identifier, table.key))}


async def _digests(connection: Connection, table: Table) -> dict[tuple[str, str], Digest]:
    cursor = await connection.execute(compose("projections", "digest", **_parts(table)), binary=True)
    return {(organization, mode): Digest(rows, bytes(sha256)) for organization, mode, rows, sha256 in await cursor.fetchall()}


async def _list(live: Connection, shadow: Connection, table: Table, owner: tuple[str, str], found: Compared, partitions: int) -> None:
    """Walk both in the order of the key, side by side."""
    partition = partition_of(record_key(OrganizationId(owner[0])), partitions)

    def note(kind: Kind, row: _Hashed, columns: tuple[str, ...] = ()) -> None:
        found.differences += 1
        if len(found.listed) < LISTED_MAX:
            found.listed.append(Difference(table.name, *owner, row.event_id, kind, table.topic, partition, row.position, columns))

    ours, theirs = _hashes(live, table, owner), _hashes(shadow, table, owner)
    left, right = await anext(ours, None), await anext(theirs, None)
    while left is not None or right is not None:
        if left is not None and (right is None or left.key < right.key):
            note("unknown", left)
            left = await anext(ours, None)
        elif right is not None and (left is None or right.key < left.key):
            note("missing", right)
            right = await anext(theirs, None)
        elif left is not None and right is not None:
            if left.sha256 != right.sha256:
                note("changed", right, await _columns(live, shadow, table, owner, left.key) if len(found.listed) < LISTED_MAX else ())
            left, right = await anext(ours, None), await anext(theirs, None)


class _Hashed(NamedTuple):
    key: tuple[Any, ...]
    sha256: bytes
    event_id: str
    position: int


async def _hashes(connection: Connection, table: Table, owner: tuple[str, str]) -> AsyncIterator[_Hashed]:
    order = sql.SQL(", ").join(
        sql.SQL('{} COLLATE "C"' if column.endswith("_id") else "{}").format(sql.Identifier(column)) for column in table.key
    )
    statement = compose("projections", "hashes", **_parts(table), order=order, position=sql.Identifier(table.position))
    async with connection.transaction(), connection.cursor("rebuild_hashes", binary=True) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(statement, {"organization": owner[0], "mode": owner[1]})
        async for *key, sha256, event_id, position in cursor:
            yield _Hashed(tuple(key), bytes(sha256), event_id, position)


async def _row(connection: Connection, table: Table, owner: tuple[str, str], key: Sequence[Any]) -> dict[str, Any]:
    wanted = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in ("organization", "mode", *table.key))
    statement = sql.SQL("SELECT * FROM ({}) t WHERE {}").format(_parts(table)["rows"], wanted)
    cursor = await connection.execute(statement, (*owner, *key))
    row = await cursor.fetchone()
    return {} if row is None else dict(zip([column.name for column in cursor.description or ()], row, strict=True))


async def _columns(live: Connection, shadow: Connection, table: Table, owner: tuple[str, str], key: Sequence[Any]) -> tuple[str, ...]:
    ours, theirs = await _row(live, table, owner, key), await _row(shadow, table, owner, key)
    return tuple(name for name, value in theirs.items() if ours.get(name) != value)
