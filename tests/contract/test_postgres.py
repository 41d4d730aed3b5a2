from __future__ import annotations

import select
import socket
import time
from typing import Any

import psycopg
import psycopg_pool
import pytest
from pydantic import SecretStr

from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, RESTORING_SCHEMA, HeldBack, connect, pool, thread_pool
from runtime.settings import PostgresSettings, Settings
from tests.contract.databases import empty_database


def bounded(settings: Settings, **changes: Any) -> PostgresSettings:
    return settings.postgres.model_copy(update=changes)


async def test_connections_of_a_pool_look_into_their_schema_say_who_they_are_and_autocommit(settings: Settings) -> None:
    async with (
        pool(settings.postgres, search_path=FOLDS_SCHEMA, application="probe") as connections,
        connections.connection() as connection,
    ):
        row = await (await connection.execute("SELECT current_schema(), current_setting('application_name')")).fetchone()
        assert row == ("folds", "triggers-probe")
        assert connection.autocommit


async def test_a_statement_that_takes_too_long_is_cancelled_and_the_pool_goes_on(settings: Settings) -> None:
    async with pool(bounded(settings, statement_timeout_s=0.2), search_path=CONTROL_SCHEMA, application="probe", size_max=1) as connections:
        async with connections.connection() as connection:
            with pytest.raises(psycopg.errors.QueryCanceled):
                await connection.execute("SELECT pg_sleep(30)")
        async with connections.connection() as connection:
            await connection.execute("SELECT 1")


def test_a_transaction_left_idle_is_ended_by_the_server(settings: Settings) -> None:
    with connect(bounded(settings, statement_timeout_s=0.2), application="probe") as connection:
        connection.execute("SELECT 1")
        readable, _, _ = select.select([connection.fileno()], [], [], 10)
        assert readable, "the server said nothing for 10 s"
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            connection.execute("SELECT 1")


async def test_an_exhausted_pool_is_waited_for_with_a_limit(settings: Settings) -> None:
    limited = bounded(settings, connect_timeout_s=0.2)
    async with pool(limited, search_path=CONTROL_SCHEMA, application="probe", size_max=1) as connections, connections.connection():
        began_s = time.monotonic()
        with pytest.raises(psycopg_pool.PoolTimeout):
            async with connections.connection():
                pass
        assert time.monotonic() - began_s < 2


async def test_nothing_gets_a_connection_to_a_database_that_a_restore_is_filling(settings: Settings) -> None:
    with empty_database(settings.postgres) as made, connect(made, application="test") as admin:
        admin.autocommit = True
        hasty = made.model_copy(update={"connect_timeout_s": 0.5})
        admin.execute(f"CREATE SCHEMA {RESTORING_SCHEMA}x".encode())
        threads = thread_pool(hasty, search_path=CONTROL_SCHEMA, application="probe", size_max=1)
        threads.open()
        async with pool(hasty, search_path=FOLDS_SCHEMA, application="probe") as connections:
            with pytest.raises(psycopg_pool.PoolTimeout):
                await connections.getconn()
            with pytest.raises(psycopg_pool.PoolTimeout):
                threads.getconn()
        threads.close()
        with pytest.raises(HeldBack):
            connect(made, application="test")
        connect(made, application="test", restoring=True).close()
        admin.execute(f"DROP SCHEMA {RESTORING_SCHEMA}x".encode())
        async with pool(made, search_path=FOLDS_SCHEMA, application="probe") as connections, connections.connection() as connection:
            await connection.execute("SELECT 1")


async def test_a_connection_that_broke_while_in_the_pool_is_replaced_before_it_is_handed_out(settings: Settings) -> None:
    async with pool(settings.postgres, search_path=CONTROL_SCHEMA, application="probe", size_max=1) as connections:
        async with connections.connection() as connection:
            first = connection.info.backend_pid
        with connect(settings.postgres, application="test") as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
        async with connections.connection() as connection:
            await connection.execute("SELECT 1")
            assert connection.info.backend_pid != first


def test_a_server_that_accepts_and_says_nothing_is_given_up_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = SecretStr(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/x")
        began_s = time.monotonic()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(PostgresSettings(dsn=dsn, connect_timeout_s=0.1), application="probe")
        assert time.monotonic() - began_s < 5  # 2 s is the least libpq takes


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://u:hunter2@[bad/x", "password=hunter2 nonsense"])
def test_a_connection_string_that_cannot_be_read_is_not_repeated(dsn: str) -> None:
    with pytest.raises(ValueError, match="TRIGGERS_POSTGRES__DSN cannot be read") as raised:
        connect(PostgresSettings(dsn=SecretStr(dsn)), application="probe")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__
