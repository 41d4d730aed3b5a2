"""Sessions of a rebuild. One owns it for as long as it lives; others help, in this process or another, and no second rebuild begins before
the last of them is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from projections.fold import Connection
from projections.shadow_tables import SHADOW_SCHEMA
from runtime.postgres import connection_arguments
from runtime.settings import PostgresSettings
from runtime.sql import load

#: First half of the advisory locks' key; the second is 0 for the owner, 1 for those who help.
_LOCK_CLASS: Final = 0x72656264  # "rebd"
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.3
#: Memory of a session that sorts and indexes whole tables.
_WORK_MEMORY: Final = "64MB"
_INDEX_MEMORY: Final = "256MB"


class RebuildError(RuntimeError):
    """The rebuild cannot go on; the live tables are as they were."""


async def connect(settings: PostgresSettings, schema: str) -> Connection:
    """A session for work that takes long: no limit on a statement's time. Autocommit."""
    arguments = connection_arguments(settings, search_path=schema, application="rebuild")
    arguments["options"] = (
        f"-c search_path={schema} -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 "
        f"-c work_mem={_WORK_MEMORY} -c maintenance_work_mem={_INDEX_MEMORY}"
    )
    return await AsyncConnection.connect(arguments.pop("conninfo"), autocommit=True, **arguments)


async def own(connection: Connection) -> None:
    """Sessions of a run that was killed may take a moment to end. Raises `RebuildError` where they do not, or another run goes on."""
    await _end_with_client(connection)
    owned = False
    for _ in range(_LOCK_TRIES):
        owned = owned or await _is(connection, "lock_rebuild")
        if owned and await _is(connection, "helpers_gone"):
            return
        await asyncio.sleep(_LOCK_PAUSE_S)
    raise RebuildError("another rebuild is running on this database: wait for it, or look for its connections `triggers-rebuild`")


@asynccontextmanager
async def helping(settings: PostgresSettings, owner: int) -> AsyncIterator[Connection]:
    """A session that helps the rebuild which the backend of this number owns. Raises `RebuildError` where it does not any more.

    What it commits need not wait for the disk: nothing counts before the exchange, whose commit does.
    """
    connection = await connect(settings, SHADOW_SCHEMA)
    try:
        await _end_with_client(connection)
        await connection.execute("SET synchronous_commit = off")
        await connection.execute(load("projections", "help_rebuild"), {"lock": _LOCK_CLASS})
        if not await _is(connection, "rebuild_owned", owner=owner):
            raise RebuildError("the rebuild that is to be helped is over")
        yield connection
    finally:
        await connection.close()


async def _end_with_client(connection: Connection) -> None:
    """A statement of ours is not worked off for minutes after we were killed, and keeps nobody out who would go on."""
    with suppress(psycopg.errors.InvalidParameterValue):  # a server whose system cannot tell
        await connection.execute("SET client_connection_check_interval = '1s'")


async def _is(connection: Connection, statement: str, **values: Any) -> bool:
    row = await (await connection.execute(load("projections", statement), {"lock": _LOCK_CLASS, **values})).fetchone()
    return row is not None and bool(row[0])
