"""Data keys in a real PostgreSQL: made once for everybody, wrapped, rewrapped, destroyed, and destroyed again by the log."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from psycopg import AsyncConnection, Connection

from access import data_keys, endpoint_secrets, epoch, erasure, organizations
from access.data_keys import DataKeys
from access.secrets import Keyring, KeyringError
from projections import lifecycle
from projections.offsets import load_offsets
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, connection_arguments, pool
from runtime.settings import PostgresSettings
from schemas import codec, ids
from schemas.ids import DataKeyId, OrganizationId
from schemas.keys import record_key
from schemas.lifecycle import ERASED_KEYS_MAX, Erased
from schemas.records import Record
from schemas.topics import LIFECYCLE
from tests.contract.new_ids import random_id

ACTOR = "test:ada"


def ring(*names: str) -> Keyring:
    return Keyring.from_setting(",".join(f"{name}:{base64.b64encode((name.encode() * 32)[:32]).decode()}" for name in names))


RING = ring("a")


@pytest.fixture
def acme(control: Connection[Any]) -> OrganizationId:
    return make(control)


def make(control: Connection[Any]) -> OrganizationId:
    made = ids.organization_id(*random_id())
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
        assert process.keys.at_hand(acme, "john") is not None
        process.changes += 1
        assert process.keys.at_hand(acme, "jane") is None
        assert (await process.has(acme, jane), await process.has(acme, john)) == (False, True)
        assert await process.id_of(acme, "jane") != jane
    assert [(one.what, one.keys, one.actor) for one in told] == [("subject", [jane], ACTOR)]
    ((action, detail),) = control.execute("SELECT action, detail FROM control.audit_log WHERE action LIKE 'data.%'").fetchall()
    assert (action, detail) == ("data.erased", {"what": "subject", "keys": 1})


def destroyed(control: Connection[Any]) -> list[tuple[Any, ...]]:
    return control.execute("SELECT actor, detail FROM control.audit_log WHERE action = 'data.erased' ORDER BY id").fetchall()


@pytest.mark.parametrize("first", ["fold", "operator"])
async def test_an_erasure_is_audited_once_as_its_operators_whoever_is_faster(
    first: str, postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId
) -> None:
    arguments = connection_arguments(postgres, search_path=FOLDS_SCHEMA, application="test")
    told: list[Erased] = []

    def fold() -> None:
        async def write() -> None:
            async with await AsyncConnection.connect(arguments["conninfo"], autocommit=True, options=arguments["options"]) as connection:
                begin = (await load_offsets(connection, {(LIFECYCLE, 0)}))[LIFECYCLE, 0]
                record = Record(begin, 1, record_key(acme), codec.encode(told[0]), ())
                await lifecycle.FOLD.write(connection, 0, lifecycle.FOLD.decode(0, [record]), begin, begin + 1)

        asyncio.run(write())

    def tell_log(record: Erased) -> None:
        told.append(record)
        if first == "fold":
            fold()

    async with Process(postgres) as process:
        await process.keys.of_subjects(acme, ["jane", "john"])
    wanted = erasure.look(control, RING, acme, None)
    await asyncio.to_thread(erasure.erase, control, SYSTEM, wanted, tell_log, actor=ACTOR)
    if first == "operator":
        await asyncio.to_thread(fold)
    assert destroyed(control) == [(ACTOR, {"what": "organization", "keys": 2})]
    assert erasure.look(control, RING, acme, None).keys == ()


async def test_an_erasure_of_many_keys_whose_end_the_log_did_not_confirm_goes_as_far_as_the_log_has_it_and_is_ended_when_asked_for_again(
    postgres: PostgresSettings, control: Connection[Any], acme: OrganizationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "ERASED_KEYS_MAX", 2)
    told: list[Erased] = []

    def tell_log(record: Erased) -> None:
        if told:
            raise RuntimeError("not confirmed")
        told.append(record)

    async with Process(postgres) as process:
        await process.keys.of_subjects(acme, ["jane", "john", None])
    with pytest.raises(RuntimeError):
        erasure.erase(control, SYSTEM, erasure.look(control, RING, acme, None), tell_log, actor=ACTOR)
    assert erasure.apply(control, told)[0] == 2, "what the log has is done by whoever reads it"
    rest = erasure.look(control, RING, acme, None)
    assert len(rest.keys) == 1
    erasure.erase(control, SYSTEM, rest, lambda _: None, actor=ACTOR)
    assert [detail["keys"] for _, detail in destroyed(control)] == [2, 1]


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
