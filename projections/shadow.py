"""The shadow: the tables of some folds once more, in a schema of their own, where the log is folded again from its start.

It is begun without indexes and loaded by COPY; then rows that lost to an earlier one are taken out, what is derived is derived, and the
indexes are made. From there on it goes on as the live tables do, by `write`. Rows and offsets share their transactions all the way, so a
rebuild that was killed goes on where the shadow stands. One session holds the lock and writes; when it ends, another may go on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql

from projections import retention
from projections.copying import copy_rows
from projections.fold import Connection, Fold, Rows, Table
from projections.folds import TARGETS, tables_of
from projections.log_reader import Chunk, Place, no_cycles
from projections.offsets import Fenced, generation, load_offsets
from projections.shadow_tables import OFFSETS_TABLE, SHADOW_SCHEMA, column_types, describe, make_indexes, make_like_live
from runtime.crashpoints import reach
from runtime.postgres import FOLDS_SCHEMA, connection_arguments
from runtime.settings import PostgresSettings
from runtime.sql import compose, load

#: First half of the advisory lock's key.
_LOCK_CLASS: Final = 0x72656264  # "rebd"
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.3
#: Memory of a session that sorts and indexes whole tables.
_WORK_MEMORY: Final = "64MB"
_INDEX_MEMORY: Final = "256MB"


class RebuildError(RuntimeError):
    """The rebuild cannot go on; the live tables are as they were."""


class Standing(NamedTuple):
    """Where a fold stands."""

    next_offset: int
    ingested_high: int


async def connect(settings: PostgresSettings, schema: str) -> Connection:
    """A session for work that takes long: no limit on a statement's time. Autocommit."""
    arguments = connection_arguments(settings, search_path=schema, application="rebuild")
    arguments["options"] = (
        f"-c search_path={schema} -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 "
        f"-c work_mem={_WORK_MEMORY} -c maintenance_work_mem={_INDEX_MEMORY}"
    )
    return await AsyncConnection.connect(arguments.pop("conninfo"), autocommit=True, **arguments)


async def standings(connection: Connection, schema: str, folds: Sequence[Fold]) -> dict[Place, Standing]:
    """Where the folds of a schema stand; a partition never seen is not in it."""
    statement = compose("projections", "all_offsets", schema=sql.Identifier(schema), generation=sql.Literal(generation()))
    cursor = await connection.execute(statement, ([fold.topic for fold in folds],))
    return {(topic, number): Standing(*rest) for topic, number, *rest in await cursor.fetchall()}


class Shadow:
    """The shadow of a target, over the session that owns it. Made by `open_shadow`."""

    def __init__(self, connection: Connection, target: str) -> None:
        self.connection = connection
        self.target = target
        self.folds: tuple[Fold, ...] = TARGETS[target]
        self.tables: tuple[Table, ...] = tables_of(self.folds)
        self.names = [table.name for table in self.tables]
        self.loaded = False
        #: Whether it was there already.
        self.resumed = False
        self._types: dict[tuple[str, str], int] = {}

    async def standings(self) -> dict[Place, Standing]:
        return await standings(self.connection, SHADOW_SCHEMA, self.folds)

    async def open(self, places: set[Place], *, restart: bool) -> None:
        """Go on with what is there if it is of this target, this code and these tables; else begin. Raises `RebuildError`."""
        await self._lock()
        wanted = (self.target, _code(), await describe(self.connection, FOLDS_SCHEMA, [*self.names, OFFSETS_TABLE]))
        state = await self._state()
        if restart or state is None or state[:3] != wanted:
            await self._begin(places, wanted)
        else:
            self.resumed, self.loaded = True, state[3]
        self._types = await column_types(self.connection, SHADOW_SCHEMA, self.names)

    async def _lock(self) -> None:
        """For as long as this session lives. The session of a run that was killed may take a moment to end."""
        for _ in range(_LOCK_TRIES):
            row = await (await self.connection.execute(load("projections", "lock_rebuild"), (_LOCK_CLASS,))).fetchone()
            if row is not None and row[0]:
                return
            await asyncio.sleep(_LOCK_PAUSE_S)
        raise RebuildError("another rebuild is running on this database: wait for it, or look for its connection `triggers-rebuild`")

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

    async def unchanged_live(self) -> bool:
        """Whether the live tables still look as they did when the shadow was begun."""
        state = await self._state()
        return state is not None and state[2] == await describe(self.connection, FOLDS_SCHEMA, [*self.names, OFFSETS_TABLE])

    async def drop(self) -> None:
        await self.connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SHADOW_SCHEMA)))

    # -- before the indexes are there

    async def load(self, chunks: Sequence[Chunk]) -> None:
        """Put records into the tables as they come. What can only be written, not loaded, is written. Raises `Fenced`."""
        with no_cycles():
            await self._load(chunks)
        reach("rebuild.after_load")

    async def _load(self, chunks: Sequence[Chunk]) -> None:
        by_topic = {fold.topic: fold for fold in self.folds}
        loaded: dict[str, Rows] = {}
        async with self.connection.transaction():
            await self.connection.execute(load("projections", "no_fsync_wait"))
            standing, marks = await self.standings(), await retention.marks(self.connection)
            for chunk in chunks:
                fold, partition = by_topic[chunk.place[0]], chunk.place[1]
                if fold.rows is None:
                    await self._write(fold, chunk)
                    continue
                found, high = fold.rows(partition, fold.decode(partition, chunk.records), standing[chunk.place].ingested_high)
                for rows in await retention.leave_out(self.connection, found, marks):
                    loaded.setdefault(rows.table, Rows(rows.table, rows.columns, [])).rows.extend(rows.rows)
                await self._move(chunk, high)
            for rows in loaded.values():
                await self._copy(rows)
            reach("rebuild.in_load")

    async def _move(self, chunk: Chunk, high: int) -> None:
        (topic, partition), old = chunk.place, chunk.begin
        values = {"topic": topic, "partition": partition, "generation": generation(), "old": old, "new": chunk.end, "high": high}
        moved = await self.connection.execute(load("projections", "move_position"), values)
        if moved.rowcount != 1:
            raise Fenced(f"the shadow's {topic}[{partition}] does not stand at {old}: does another rebuild write it?")

    async def _copy(self, rows: Rows) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(SHADOW_SCHEMA, rows.table), names)
        types = [self._types[rows.table, column] for column in rows.columns]
        await copy_rows(self.connection, statement, types, rows.rows)

    async def finish(self) -> None:
        """Make whole what was loaded: one transaction, after which `fold` goes on."""
        async with self.connection.transaction():
            for table in self.tables:
                if table.once:
                    await self._settle(table)
            for table in self.tables:
                if table.derive is not None:
                    await self.connection.execute(load("projections", table.derive))
                    await make_indexes(self.connection, [table.name])
            for name in self.names:
                await self.connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(SHADOW_SCHEMA, name)))
            await self.connection.execute(sql.SQL("UPDATE {} SET loaded = true").format(sql.Identifier(SHADOW_SCHEMA, "rebuild")))
            reach("rebuild.in_finish")
        self.loaded = True
        reach("rebuild.after_finish")

    async def _settle(self, table: Table) -> None:
        """Rows that lost are rare: where a unique key shows them they are only looked for when it is refused."""
        if not table.once_is_unique:
            await self._keep_first(table)
        try:
            async with self.connection.transaction():
                await make_indexes(self.connection, [table.name])
        except psycopg.errors.UniqueViolation:
            await self._keep_first(table)
            await make_indexes(self.connection, [table.name])

    async def _keep_first(self, table: Table) -> None:
        await self.connection.execute(
            compose(
                "projections", table.keep, table=sql.Identifier(SHADOW_SCHEMA, table.name),
                order=sql.SQL(", ").join(map(sql.Identifier, table.order or (table.position,))),
                once=sql.SQL(", ").join(map(sql.Identifier, table.once)),
            )
        )  # fmt: skip

    # -- afterwards

    async def fold(self, chunks: Sequence[Chunk]) -> None:
        """Fold records as the live folds do. Raises `Fenced`."""
        by_topic = {fold.topic: fold for fold in self.folds}
        for chunk in chunks:
            await self._write(by_topic[chunk.place[0]], chunk)
            reach("rebuild.after_fold")

    async def _write(self, fold: Fold, chunk: Chunk) -> None:
        partition = chunk.place[1]
        await fold.write(self.connection, partition, fold.decode(partition, chunk.records), chunk.begin, chunk.end)


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
