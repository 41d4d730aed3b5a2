"""What makes loaded tables whole: rows that lost taken out, keys and indexes, derived tables, statistics.

Several sessions do it side by side, those of one topic's tables while the next topic is still being loaded. Each statement commits by
itself: whoever goes on after a kill finds the rows loaded, takes the rest back (`Shadow.open`) and finishes them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
from psycopg import sql

from projections.fold import Connection, Fold, Table
from projections.sessions import helping
from projections.shadow import Shadow
from projections.shadow_tables import SHADOW_SCHEMA, Index, indexes_of_live
from projections.sideways import together
from runtime.crashpoints import reach
from runtime.settings import PostgresSettings
from runtime.sql import compose, load


class Finishing:
    """Made by `finishing`. `begin` each fold whose topic was loaded, `end` when all were."""

    def __init__(self, shadow: Shadow, sessions: Sequence[Connection], indexes: Sequence[Index]) -> None:
        self._shadow = shadow
        self._indexes = indexes
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        for session in sessions:
            self._free.put_nowait(session)
        self._settled = {table.name: asyncio.Event() for table in shadow.tables if table.once}
        self._begun: list[asyncio.Task[None]] = []
        #: Constraints to be made of indexes that are there. This lets nobody read the table meanwhile, so it comes last.
        self._attach: list[sql.Composed] = []

    def begin(self, fold: Fold) -> None:
        for table in fold.tables:
            if table.once:
                self._begun.append(asyncio.ensure_future(self._settle(table)))

    async def end(self) -> None:
        """Afterwards `Shadow.fold` goes on. Raises what a table met, `psycopg.Error`."""
        derived = [self._derive(table, table.derive) for table in self._shadow.tables if table.derive is not None]
        written = [self._analyze(table.name) for table in self._shadow.tables if table.derive is None and not table.once]
        await together(*map(_joined, self._begun), *derived, *written)
        connection = self._shadow.connection
        async with connection.transaction():
            await connection.execute(load("projections", "no_fsync_wait"))
            for statement in self._attach:
                await connection.execute(statement)
            await connection.execute(sql.SQL("UPDATE {} SET loaded = true").format(sql.Identifier(SHADOW_SCHEMA, "rebuild")))
            reach("rebuild.in_finish")
        self._shadow.loaded = True
        reach("rebuild.after_finish")

    async def abandon(self) -> None:
        """Until nothing of it goes on."""
        for task in self._begun:
            task.cancel()
        await asyncio.gather(*self._begun, return_exceptions=True)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        session = await self._free.get()
        try:
            yield session
        finally:
            self._free.put_nowait(session)

    async def _execute(self, statement: sql.Composed | bytes) -> None:
        async with self._session() as session:
            await session.execute(statement)

    async def _settle(self, table: Table) -> None:
        """Rows that lost are rare: where a unique key shows them they are only looked for when it is refused."""
        if not table.once_is_unique:
            await self._keep_first(table)
        indexes = self._of(table)
        if refused := await self._make_unique([index for index in indexes if index.unique]):
            await self._keep_first(table)
            await self._make(refused)
        self._settled[table.name].set()
        await self._make([index for index in indexes if not index.unique])
        await self._analyze(table.name)
        reach("rebuild.settled")

    def _of(self, table: Table) -> list[Index]:
        indexes = [index for index in self._indexes if index.table == table.name]
        self._attach += [index.attach for index in indexes if index.attach is not None]
        return indexes

    async def _make(self, indexes: Iterable[Index]) -> None:
        await together(*(self._execute(index.statement) for index in indexes))

    async def _make_unique(self, indexes: Sequence[Index]) -> list[Index]:
        """Those that rows which lost do not let be made."""
        refused = []

        async def make(index: Index) -> None:
            try:
                await self._execute(index.statement)
            except psycopg.errors.UniqueViolation:
                refused.append(index)

        await together(*map(make, indexes))
        return refused

    async def _derive(self, table: Table, statement: str) -> None:
        """Once no row that lost is left."""
        for settled in self._settled.values():
            await settled.wait()
        await self._execute(load("projections", statement))
        await self._make(self._of(table))
        await self._analyze(table.name)

    async def _keep_first(self, table: Table) -> None:
        await self._execute(
            compose(
                "projections", table.keep, table=sql.Identifier(SHADOW_SCHEMA, table.name),
                order=sql.SQL(", ").join(map(sql.Identifier, table.order or (table.position,))),
                once=sql.SQL(", ").join(map(sql.Identifier, table.once)),
            )
        )  # fmt: skip

    async def _analyze(self, name: str) -> None:
        await self._execute(sql.SQL("ANALYZE {}").format(sql.Identifier(SHADOW_SCHEMA, name)))


async def _joined(task: asyncio.Task[None]) -> None:
    await task


@asynccontextmanager
async def finishing(settings: PostgresSettings, shadow: Shadow, sessions: int) -> AsyncIterator[Finishing]:
    """With so many sessions. Raises `RebuildError`, `psycopg.Error`."""
    owner = shadow.connection.info.backend_pid
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(helping(settings, owner)) for _ in range(sessions)]
        work = Finishing(shadow, opened, await indexes_of_live(shadow.connection, shadow.names))
        try:
            yield work
        finally:
            await work.abandon()
