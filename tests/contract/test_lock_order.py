"""Whoever changes several data keys or secrets takes them in one order: of two that did otherwise, PostgreSQL would end one as a deadlock.

Rows lie in the table the other way round, and no index is used: without an order of its own, a statement takes the last one first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from access import data_keys, endpoint_secrets, erasure
from access.erasure import Wanted
from access.organizations import Organization
from projections import lifecycle
from projections.offsets import load_offsets
from runtime.clock import SYSTEM
from runtime.postgres import FOLDS_SCHEMA, connect, connection_arguments
from runtime.settings import PostgresSettings
from schemas import codec
from schemas.ids import DataKeyId, EndpointId
from schemas.keys import record_key
from schemas.lifecycle import Erased
from schemas.records import Record
from schemas.topics import LIFECYCLE
from tests.contract.test_control_plane import ACTOR, make_endpoint, make_organization, ring

WORKER = "worker"
NO_INDEXES = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
INSERT = "INSERT INTO control.data_keys (id, organization, subject_digest, wrapped, master_key_id) VALUES (%s, %s, %s, %s, %s)"
KEYS, SECRETS = sql.Identifier("control", "data_keys"), sql.Identifier("control", "endpoint_secrets")


@pytest.fixture
def acme(control: Connection[Any]) -> Organization:
    return make_organization(control)


@pytest.fixture
def keys(control: Connection[Any], acme: Organization) -> list[DataKeyId]:
    """In the order of their ids."""
    made = [data_keys.wrapped(ring("o"), acme.id, at_ms) for at_ms in (1, 2, 3)]
    for number, (key_id, wrapped, master_key_id) in reversed(list(enumerate(made))):
        control.execute(INSERT, (key_id, acme.id, b"digest %d" % number, wrapped, master_key_id))
    return [one[0] for one in made]


@pytest.fixture
def endpoint(control: Connection[Any], acme: Organization) -> EndpointId:
    """With secrets 1 to 3."""
    made = make_endpoint(control, acme.id)[0]
    control.execute("DELETE FROM control.endpoint_secrets")
    for number in (3, 2, 1):
        endpoint_secrets.insert(control, ring("o"), EndpointId(made.id), number, b"s" * 24)
    return EndpointId(made.id)


def held_while_it_waits(
    postgres: PostgresSettings, table: sql.Identifier, waits_for: object, work: Callable[[Connection[Any]], object]
) -> list[Any]:
    """Which rows `work` holds while somebody else has this one."""
    with (
        connect(postgres, application="test") as other,
        connect(postgres, application=WORKER) as mine,
        connect(postgres, application="test") as look,
        ThreadPoolExecutor(1) as threads,
    ):
        mine.autocommit = look.autocommit = True
        mine.execute(NO_INDEXES)
        other.execute(sql.SQL("SELECT FROM {} WHERE id = %s FOR UPDATE").format(table), (waits_for,))
        working = threads.submit(work, mine)
        try:
            waiting = "SELECT FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
            deadline_s = time.monotonic() + 20
            while look.execute(waiting, (f"triggers-{WORKER}",)).fetchone() is None:
                assert not working.done(), working.result()
                assert time.monotonic() < deadline_s, "it did not come to the row"
                time.sleep(0.02)
            rows = [row[0] for row in look.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(table))]
            free = [row[0] for row in look.execute(sql.SQL("SELECT id FROM {} FOR UPDATE SKIP LOCKED").format(table))]
        finally:
            other.rollback()
        working.result(20)
        return [row for row in rows if row not in free and row != waits_for]


def folding(postgres: PostgresSettings, organization: Organization, records: list[list[DataKeyId]]) -> None:
    """The fold of `lifecycle` over an erasure of several records."""

    async def fold() -> None:
        arguments = connection_arguments(postgres, search_path=FOLDS_SCHEMA, application=WORKER)
        connection = await psycopg.AsyncConnection.connect(arguments.pop("conninfo"), autocommit=True, **arguments)
        async with connection:
            for statement in NO_INDEXES.split("; "):
                await connection.execute(statement)
            begin = (await load_offsets(connection, {(LIFECYCLE, 0)}))[LIFECYCLE, 0]
            told = [
                Erased(v=1, organization=organization.id, what="organization", keys=keys, actor=ACTOR, at_ms=SYSTEM.now_ms())
                for keys in records
            ]
            log = [Record(begin + n, 1, record_key(organization.id), codec.encode(one), ()) for n, one in enumerate(told)]
            await lifecycle.FOLD.write(connection, 0, lifecycle.FOLD.decode(0, log), begin, begin + len(log))

    asyncio.run(fold())


def test_a_rewrap_an_erasure_and_the_fold_of_erasures_take_data_keys_in_the_order_of_their_ids(
    postgres: PostgresSettings, control: Connection[Any], acme: Organization, keys: list[DataKeyId]
) -> None:
    def rewrap(connection: Connection[Any]) -> object:
        return endpoint_secrets.rewrap(connection, ring("n", "o"), actor=ACTOR)

    def fold(_: Connection[Any]) -> None:
        folding(postgres, acme, [keys[1:], keys[:1]])

    def erase(connection: Connection[Any]) -> object:
        return erasure.erase(connection, SYSTEM, Wanted(acme.id, None, tuple(keys)), lambda _: None, actor=ACTOR)

    rows = control.execute(
        "SELECT id, organization, subject_digest, wrapped, master_key_id FROM control.data_keys ORDER BY id DESC"
    ).fetchall()
    works: list[Callable[[Connection[Any]], object]] = [rewrap, fold, erase]
    for work in works:
        control.execute("TRUNCATE control.data_keys")
        for row in rows:
            control.execute(INSERT, row)
        assert held_while_it_waits(postgres, KEYS, keys[1], work) == keys[:1], repr(work)
    assert control.execute("SELECT FROM control.data_keys").fetchall() == []


def test_a_rewrap_a_rotation_and_a_deletion_take_an_endpoints_secrets_in_the_order_of_their_numbers(
    postgres: PostgresSettings, endpoint: EndpointId
) -> None:
    def rewrap(connection: Connection[Any]) -> object:
        return endpoint_secrets.rewrap(connection, ring("n", "o"), actor=ACTOR)

    def forget(connection: Connection[Any]) -> None:
        with connection.transaction():
            endpoint_secrets.forget(connection, endpoint)
            raise psycopg.Rollback

    def rotate(connection: Connection[Any]) -> None:
        with connection.transaction():
            endpoint_secrets.replace(connection, ring("n"), endpoint, b"t" * 24, overlap_s=0)
            raise psycopg.Rollback

    works: list[Callable[[Connection[Any]], object]] = [forget, rotate, rewrap]
    for work in works:
        assert held_while_it_waits(postgres, SECRETS, 2, work) == [1], repr(work)
