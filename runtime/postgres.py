"""PostgreSQL connections with limits on everything: connecting, a statement, an idle transaction, a dead peer."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from runtime.settings import PostgresSettings

#: Schema of the control plane, and of what is folded from topics.
CONTROL_SCHEMA: Final = "control"
FOLDS_SCHEMA: Final = "folds"
#: Beginning of the name of a schema that is there while a restore fills the database: no process works with what is half there.
RESTORING_SCHEMA: Final = "restoring_"

Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]
ThreadPool = ConnectionPool[Connection[tuple[Any, ...]]]

#: Threads that may wait for a connection of a `thread_pool`; further ones are refused at once.
_WAITING_MAX: Final = 32

_RESTORING_HERE: Final = "SELECT FROM pg_namespace WHERE starts_with(nspname::text, %s)"


class HeldBack(psycopg.OperationalError):
    """A restore fills the database: there is no connection until it is done, as if the server were away."""


async def _whole(connection: AsyncConnection[Any]) -> None:
    if await (await connection.execute(_RESTORING_HERE, (RESTORING_SCHEMA,))).fetchone() is not None:
        await connection.close()
        raise HeldBack("a restore of this database is not done")


def _whole_here(connection: Connection[Any]) -> None:
    if connection.execute(_RESTORING_HERE, (RESTORING_SCHEMA,)).fetchone() is not None:
        connection.close()
        raise HeldBack("a restore of this database is not done")


def connection_arguments(settings: PostgresSettings, *, search_path: str, application: str) -> dict[str, Any]:
    """libpq parameters every connection of ours has. A vanished peer is noticed within seconds, not a quarter of an hour.

    Raises `ValueError` for a connection string that libpq cannot read, without repeating it: it may hold a password.
    """
    try:
        conninfo_to_dict(settings.dsn.get_secret_value())
    except psycopg.ProgrammingError:
        raise ValueError("TRIGGERS_POSTGRES__DSN cannot be read: write postgresql://user@host:port/database") from None
    statement_timeout_ms = int(settings.statement_timeout_s * 1000)
    return {
        "conninfo": settings.dsn.get_secret_value(),
        "connect_timeout": max(2, round(settings.connect_timeout_s)),
        "application_name": f"triggers-{application}",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": statement_timeout_ms + 5_000,
        "options": f"-c search_path={search_path} -c statement_timeout={statement_timeout_ms} "
        f"-c idle_in_transaction_session_timeout={2 * statement_timeout_ms}",
    }


def pool(settings: PostgresSettings, *, search_path: str, application: str, size_max: int | None = None, checked: bool = True) -> Pool:
    """A pool that is not open yet: `await pool.open()`, `await pool.close()`. Connections autocommit: a transaction is explicit.

    Taking a connection waits at most `connect_timeout_s`, then raises `psycopg_pool.PoolTimeout`. `checked`: it is asked first whether it
    is alive, a round trip each time; without, whoever takes it tries again when it was not.
    """
    arguments = connection_arguments(settings, search_path=search_path, application=application)
    return AsyncConnectionPool(
        conninfo=arguments.pop("conninfo"),
        kwargs={**arguments, "autocommit": True},
        min_size=1,
        max_size=size_max or settings.pool_size_max,
        timeout=settings.connect_timeout_s,
        reconnect_timeout=settings.connect_timeout_s,
        check=AsyncConnectionPool.check_connection if checked else None,
        configure=_whole,
        open=False,
        name=application,
    )


def thread_pool(settings: PostgresSettings, *, search_path: str, application: str, size_max: int) -> ThreadPool:
    """As `pool`, for code that runs in threads: `pool.open()`, `pool.close()`. It holds no connection while nothing needs one."""
    arguments = connection_arguments(settings, search_path=search_path, application=application)
    return ConnectionPool(
        conninfo=arguments.pop("conninfo"),
        kwargs={**arguments, "autocommit": True},
        min_size=0,
        max_size=size_max,
        max_waiting=_WAITING_MAX,
        timeout=settings.connect_timeout_s,
        reconnect_timeout=settings.connect_timeout_s,
        check=ConnectionPool.check_connection,
        configure=_whole_here,
        open=False,
        name=application,
    )


def connect(
    settings: PostgresSettings, *, search_path: str = CONTROL_SCHEMA, application: str, restoring: bool = False
) -> Connection[tuple[Any, ...]]:
    """One connection for a command line. `restoring`: also while a restore fills the database, for who knows what to make of that.

    Raises `psycopg.OperationalError` (`HeldBack` is one), and `ValueError` as `connection_arguments`.
    """
    arguments = connection_arguments(settings, search_path=search_path, application=application)
    connection = psycopg.connect(arguments.pop("conninfo"), **arguments)
    if not restoring:
        try:
            _whole_here(connection)
            connection.rollback()
        except psycopg.Error:
            connection.close()
            raise
    return connection
