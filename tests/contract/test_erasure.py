"""Data keys in a real PostgreSQL: made once for everybody, wrapped, rewrapped, destroyed, and destroyed again by the log."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from access import data_keys, endpoint_secrets, epoch, erasure, organizations
from access.data_keys import DataKeys
from access.secrets import Keyring, KeyringError
from runtime import migrations
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, connect, pool
from runtime.settings import PostgresSettings, Settings
from schemas import ids
from schemas.ids import DataKeyId, OrganizationId
from schemas.lifecycle import ERASED_KEYS_MAX, Erased
from tests.contract.databases import empty_database

ACTOR = "test:ada"


def ring(*names: str) -> Keyring:
    return Keyring.from_setting(",".join(f"{name}:{base64.b64encode((name.encode() * 32)[:32]).decode()}" for name in names))


RING = ring("a")


@pytest.fixture(scope="module")
def postgres(settings: Settings) -> Iterator[PostgresSettings]:
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        yield made


@pytest.fixture
def control(postgres: PostgresSettings) -> Iterator[Connection[Any]]:
    with connect(postgres, application="test") as connection:
        connection.autocommit = True
        connection.execute("TRUNCATE control.organizations, control.audit_log CASCADE")
        yield connection


@pytest.fixture
def acme(control: Connection[Any]) -> OrganizationId:
    return make(control)


def make(control: Connection[Any]) -> OrganizationId:
    made = ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES))
    return organizations.create(control, made, name="Acme", plan="pro", rate_limit_per_minute=None, actor=ACTOR).id


class Process:
    """Data keys as one API process has them."""

    def __init__(self, postgres: PostgresSettings, keyring: Keyring = RING) -> None:
        self.changes = 0
        self.pool = pool(postgres, search_path=CONTROL_SCHEMA, application="test")
        self.keys = DataKeys(self.pool, keyring, SYSTEM, lambda: self.changes)

    async def __aenter__(self) -> Process:
        await self.pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    async def id_of(self, organization: OrganizationId, subject: str | None) -> DataKeyId:
        return (await self.keys.of_subjects(organization, [subject]))[subject].id

    async def has(self, organization: OrganizationId, key: DataKeyId) -> bool:
        async with self.pool.connection() as connection:
            return key in await self.keys.by_ids(connection, organization, [key])


async def test_processes_that_ask_at_once_get_one_key_for_a_subject(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    async with Process(postgres) as one, Process(postgres) as two:
        subjects = [f"s{n}" for n in range(50)]
        asked = [process.keys.of_subjects(acme, order) for process in (one, two) for order in (subjects, subjects[::-1], [*subjects, None])]
        answers = await asyncio.gather(*asked)
        for subject in subjects:
            assert len({answer[subject].id for answer in answers}) == 1
    assert len(erasure.look(control, RING, acme, None).keys) == 51
    rows = control.execute("SELECT subject_digest, wrapped FROM control.data_keys").fetchall()
    assert all(b"s1" not in part for row in rows for part in row)


async def test_a_key_is_of_one_organization_and_nobody_else_is_given_it(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    other = make(control)
    async with Process(postgres) as process:
        key = await process.id_of(acme, "jane")
        assert await process.id_of(other, "jane") != key
        assert await process.has(acme, key)
        assert not await process.has(other, key)
    with pytest.raises(KeyringError):
        row = control.execute("SELECT id, subject_digest, wrapped, master_key_id FROM control.data_keys WHERE id = %s", (key,)).fetchone()
        assert row is not None
        data_keys.unwrapped(RING, other, row)


async def test_an_erased_key_is_gone_at_once_where_the_epoch_is_seen_and_the_next_event_has_a_new_one(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    told: list[Erased] = []
    before = epoch.current_version(control)
    async with Process(postgres) as process:
        jane, john = await process.id_of(acme, "jane"), await process.id_of(acme, "john")
        wanted = erasure.look(control, RING, acme, "jane")
        assert wanted.keys == (jane,)
        assert erasure.look(control, RING, acme, "nobody").keys == ()
        version = erasure.erase(control, SYSTEM, wanted, told.append, actor=ACTOR)
        assert version == before + 1
        process.changes += 1
        assert (await process.has(acme, jane), await process.has(acme, john)) == (False, True)
        assert await process.id_of(acme, "jane") != jane
    assert [(one.what, one.keys, one.actor) for one in told] == [("subject", [jane], ACTOR)]
    ((action, detail),) = control.execute("SELECT action, detail FROM control.audit_log WHERE action LIKE 'data.%'").fetchall()
    assert (action, detail) == ("data.erased", {"what": "subject", "keys": 1})


async def test_where_the_log_does_not_confirm_nothing_is_destroyed(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    def refuse(_: Erased) -> None:
        raise RuntimeError("not confirmed")

    async with Process(postgres) as process:
        key = await process.id_of(acme, "jane")
        with pytest.raises(RuntimeError):
            erasure.erase(control, SYSTEM, erasure.look(control, RING, acme, "jane"), refuse, actor=ACTOR)
        process.changes += 1
        assert await process.has(acme, key)


async def test_a_dump_older_than_an_erasure_loses_the_key_again_and_nothing_else(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    told: list[Erased] = []
    async with Process(postgres) as process:
        await process.keys.of_subjects(acme, ["jane", "john", None])
        dump = control.execute("SELECT * FROM control.data_keys").fetchall()
        erasure.erase(control, SYSTEM, erasure.look(control, RING, acme, "jane"), told.append, actor=ACTOR)
        for row in dump:
            control.execute("INSERT INTO control.data_keys VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", row)
        assert len(erasure.look(control, RING, acme, None).keys) == 3
        gone, version = erasure.apply(control, told)
        assert gone == 1
        assert version == epoch.current_version(control)
        assert erasure.apply(control, told) == (0, None)
        assert len(erasure.look(control, RING, acme, None).keys) == 2


async def test_an_organization_is_erased_whole_and_its_subjects_are_found_again_afterwards(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "ERASED_KEYS_MAX", 2)
    assert ERASED_KEYS_MAX > 2
    told: list[Erased] = []
    async with Process(postgres) as process, Process(postgres) as stale:
        await process.keys.of_subjects(acme, ["jane", "john", None])
        await stale.keys.of_subjects(acme, ["jane"])
        erasure.erase(control, SYSTEM, erasure.look(control, RING, acme, None), told.append, actor=ACTOR)
        assert [len(one.keys) for one in told] == [2, 1]
        assert erasure.look(control, RING, acme, None).keys == ()
        # A process that has not heard of it makes keys all the same, and they are found by the subject.
        made = await stale.id_of(acme, "new")
        assert erasure.look(control, RING, acme, "new").keys == (made,)


async def test_data_keys_are_rewrapped_with_the_secrets_and_stay_the_same_subjects(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    async with Process(postgres, ring("old")) as process:
        before = await process.id_of(acme, "jane")
    assert endpoint_secrets.rewrap(control, ring("new", "old"), actor=ACTOR) == 2  # and the index secret
    async with Process(postgres, ring("new")) as process:
        assert await process.id_of(acme, "jane") == before
