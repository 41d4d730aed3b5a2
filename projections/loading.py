"""The way into tables of the shadow that have no indexes yet: records to rows to COPY, a transaction a batch, over one session.

Sessions may load side by side, each other partitions.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from projections import retention
from projections.copying import copy_rows
from projections.fold import Connection, Fold, Rows
from projections.folds import TARGETS, tables_of
from projections.log_reader import Chunk, no_cycles
from projections.offsets import Fenced, generation
from projections.shadow import standings, write
from projections.shadow_tables import SHADOW_SCHEMA, column_types
from runtime.crashpoints import reach
from runtime.sql import load


class Loading:
    """Made by `open_loading`."""

    def __init__(self, connection: Connection, folds: Sequence[Fold], types: dict[tuple[str, str], int]) -> None:
        self._connection = connection
        self._folds = {fold.topic: fold for fold in folds}
        self._types = types

    async def load(self, chunks: Sequence[Chunk]) -> None:
        """Put records into the tables as they come. What can only be written, not loaded, is written. Raises `Fenced`."""
        with no_cycles():
            await self._load(chunks)
        reach("rebuild.after_load")

    async def _load(self, chunks: Sequence[Chunk]) -> None:
        loaded: dict[str, Rows] = {}
        async with self._connection.transaction():
            await self._connection.execute(load("projections", "no_fsync_wait"))
            standing = await standings(self._connection, SHADOW_SCHEMA, list(self._folds.values()))
            marks = await retention.marks(self._connection)
            for chunk in chunks:
                fold, partition = self._folds[chunk.place[0]], chunk.place[1]
                if fold.rows is None:
                    await write(self._connection, fold, chunk)
                    continue
                found, high = fold.rows(partition, fold.decode(partition, chunk.records), standing[chunk.place].ingested_high)
                for rows in await retention.leave_out(self._connection, found, marks):
                    loaded.setdefault(rows.table, Rows(rows.table, rows.columns, [])).rows.extend(rows.rows)
                await self._move(chunk, high)
            for rows in loaded.values():
                await self._copy(rows)
            reach("rebuild.in_load")

    async def _move(self, chunk: Chunk, high: int) -> None:
        (topic, partition), old = chunk.place, chunk.begin
        values = {"topic": topic, "partition": partition, "generation": generation(), "old": old, "new": chunk.end, "high": high}
        moved = await self._connection.execute(load("projections", "move_position"), values)
        if moved.rowcount != 1:
            raise Fenced(f"the shadow's {topic}[{partition}] does not stand at {old}: does another rebuild write it?")

    async def _copy(self, rows: Rows) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(SHADOW_SCHEMA, rows.table), names)
        types = [self._types[rows.table, column] for column in rows.columns]
        await copy_rows(self._connection, statement, types, rows.rows)


async def open_loading(connection: Connection, target: str) -> Loading:
    """Into the shadow of a target, which has been begun."""
    folds = TARGETS[target]
    return Loading(connection, folds, await column_types(connection, SHADOW_SCHEMA, [table.name for table in tables_of(folds)]))
