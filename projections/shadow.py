"""The shadow: the tables of some folds once more, in a schema of their own, where the log is folded again from its start.

It is begun without indexes and loaded by COPY (`projections.loading`); then rows that lost to an earlier one are taken out, what is derived
is derived, and the indexes are made (`projections.finishing`). From there on it goes on as the live tables do, by `write`. Rows and
offsets share their transactions all the way, so a rebuild that was killed goes on where the shadow stands. One session owns it; when it
ends, another may go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import sql

from projections.fold import Connection, Fold, Table
from projections.folds import TARGETS, tables_of
from projections.log_reader import Chunk, Place
from projections.offsets import generation, load_offsets
from projections.sessions import own
from projections.shadow_tables import OFFSETS_TABLE, SHADOW_SCHEMA, describe, drop_indexes, make_indexes, make_like_live
from runtime.crashpoints import reach
from runtime.postgres import FOLDS_SCHEMA
from runtime.sql import compose


class Standing(NamedTuple):
    """Where a fold stands."""

    next_offset: int
    ingested_high: int


async def standings(connection: Connection, schema: str, folds: Sequence[Fold]) -> dict[Place, Standing]:
    """Where the folds of a schema stand; a partition never seen is not in it."""
    statement = compose("projections", "all_offsets", schema=sql.Identifier(schema), generation=sql.Literal(generation()))
    cursor = await connection.execute(statement, ([fold.topic for fold in folds],))
    return {(topic, number): Standing(*rest) for topic, number, *rest in await cursor.fetchall()}


class Shadow:
    """The shadow of a target, over the session that owns it."""

    def __init__(self, connection: Connection, target: str) -> None:
        self.connection = connection
        self.target = target
        self.folds: tuple[Fold, ...] = TARGETS[target]
        self.tables: tuple[Table, ...] = tables_of(self.folds)
        self.names = [table.name for table in self.tables]
        self.loaded = False
        #: Whether it was there already.
        self.resumed = False

    async def standings(self) -> dict[Place, Standing]:
        return await standings(self.connection, SHADOW_SCHEMA, self.folds)

    async def open(self, places: set[Place], *, restart: bool) -> None:
        """Go on with what is there if it is of this target, this code and these tables; else begin. Raises `RebuildError`."""
        await own(self.connection)
        wanted = (self.target, _code(), await describe(self.connection, FOLDS_SCHEMA, [*self.names, OFFSETS_TABLE]))
        state = await self._state()
        if restart or state is None or state[:3] != wanted:
            await self._begin(places, wanted)
        else:
            self.resumed, self.loaded = True, state[3]
            if not self.loaded:
                await self._unfinish()

    async def _state(self) -> tuple[str, str, str, bool] | None:
        try:
            cursor = await self.connection.execute(compose("projections", "shadow_state", schema=sql.Identifier(SHADOW_SCHEMA)))
        except psycopg.errors.UndefinedTable:
            return None
        return await cursor.fetchone()

    async def _begin(self, places: set[Place], wanted: tuple[str, str, str]) -> None:
        async with self.connection.transaction():
            await self.drop()
            await self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SHADOW_SCHEMA)))
            await self.connection.execute(compose("projections", "begin_shadow", schema=sql.Identifier(SHADOW_SCHEMA)))
            await make_like_live(self.connection, [*self.names, OFFSETS_TABLE])
            written = [table.name for table in self.tables if not table.once and table.derive is None]
            await make_indexes(self.connection, [*written, OFFSETS_TABLE])
            await load_offsets(self.connection, places)
            note = sql.SQL("INSERT INTO {} (target, code, tables) VALUES (%s, %s, %s)").format(sql.Identifier(SHADOW_SCHEMA, "rebuild"))
            await self.connection.execute(note, wanted)

    async def _unfinish(self) -> None:
        """Back to tables that can be loaded: a run that was killed had begun to finish them."""
        derived = [table.name for table in self.tables if table.derive is not None]
        async with self.connection.transaction():
            await drop_indexes(self.connection, [*derived, *(table.name for table in self.tables if table.once)])
            for name in derived:
                await self.connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(SHADOW_SCHEMA, name)))

    async def unchanged_live(self) -> bool:
        """Whether the live tables still look as they did when the shadow was begun."""
        state = await self._state()
        return state is not None and state[2] == await describe(self.connection, FOLDS_SCHEMA, [*self.names, OFFSETS_TABLE])

    async def drop(self) -> None:
        await self.connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SHADOW_SCHEMA)))

    async def fold(self, chunks: Sequence[Chunk]) -> None:
        """Fold records as the live folds do, into tables that have their indexes. Raises `Fenced`."""
        by_topic = {fold.topic: fold for fold in self.folds}
        for chunk in chunks:
            await write(self.connection, by_topic[chunk.place[0]], chunk)
            reach("rebuild.after_fold")


async def write(connection: Connection, fold: Fold, chunk: Chunk) -> None:
    """Raises `Fenced`."""
    partition = chunk.place[1]
    await fold.write(connection, partition, fold.decode(partition, chunk.records), chunk.begin, chunk.end)


def _code() -> str:
    """Of everything a fold's rows depend on here: a shadow that other code began is not gone on with."""
    digest = hashlib.sha256()
    for package in ("projections", "schemas"):
        folder = files(package)
        found = [*folder.iterdir(), *((folder / "sql").iterdir() if package == "projections" else ())]
        for one in sorted(found, key=lambda f: f.name):
            if one.name.endswith((".py", ".sql")):
                digest.update(one.name.encode() + b"\0" + one.read_bytes())
    return digest.hexdigest()
