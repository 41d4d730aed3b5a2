from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
import pytest

from ingest import catalogue
from ingest.catalogue import Catalogue, Validators
from runtime.postgres import Pool
from schemas.events import Mode
from schemas.ids import OrganizationId
from schemas.problems import ProblemError
from schemas.strict import NESTING_MAX
from tests.unit.access.fakes import Clock

ACME, OTHER = OrganizationId("org_1"), OrganizationId("org_2")
INTEGER = b'{"type":"integer"}'


class Control:
    """A pool over a control plane whose schemas are chosen; counts what it is asked. `gate` holds an answer after it was read."""

    def __init__(self) -> None:
        self.version = 1
        self.schemas: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
        self.asked: list[str] = []
        self.texts_sent = 0
        self.away = False
        self.stuck = False
        self.gate: asyncio.Event | None = None

    def put(self, organization: str, event_type: str, version: int, schema: bytes, mode: Mode = "live") -> None:
        self.schemas.setdefault((organization, mode), {})[event_type] = (version, schema)
        self.version += 1

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Control]:
        if self.stuck:
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise psycopg.OperationalError("away")
        yield self

    async def execute(self, statement: bytes, values: dict[str, Any] | None = None) -> Control:
        if values is None:
            self.asked.append("version")
            self._rows: list[tuple[Any, ...]] = [(self.version,)]
        else:
            self.asked.append(f"{values['organization']}/{values['mode']}")
            held = self.schemas.get((values["organization"], values["mode"]), {})
            rows = []
            for event_type, (version, text) in held.items():
                digest = text.rjust(32)[:32]
                known = digest in values["known"]
                self.texts_sent += not known
                rows.append((self.version, event_type, version, digest, None if known else text))
            self._rows = rows or [(self.version, None, None, None, None)]
        return self

    async def fetchall(self) -> list[tuple[Any, ...]]:
        rows = self._rows
        if self.gate is not None:
            await self.gate.wait()
        return rows


class Here:
    def __init__(self) -> None:
        self.control, self.clock, self.changes = Control(), Clock(), 0
        self.catalogue = Catalogue(cast(Pool, self.control), self.clock, lambda: self.changes)

    async def loaded(self, organization: OrganizationId = ACME, mode: Mode = "live") -> Validators:
        return await self.catalogue.validators(organization, mode)

    def known(self, organization: OrganizationId = ACME, mode: Mode = "live") -> Validators | None:
        return self.catalogue.known(organization, mode)


@pytest.fixture
def here() -> Here:
    return Here()


def refused(validators: Validators | None, payload: bytes, event_type: str = "a") -> ProblemError:
    assert validators is not None
    with pytest.raises(ProblemError) as caught:
        validators.check(event_type, payload)
    return caught.value


async def test_without_schemas_nothing_is_asked_again_while_the_copy_is_fresh(here: Here) -> None:
    assert here.known() is None
    await here.loaded()
    for _ in range(100):
        copy = here.known()
        assert copy is not None
        copy.check("a", b"anything, even this")
    assert here.control.asked == ["org_1/live"]


async def test_a_payload_that_does_not_match_is_refused_with_places_and_version(here: Here) -> None:
    here.control.put(ACME, "a", 3, b'{"properties":{"x/y":{"type":"integer"}},"required":["z"]}')
    error = refused(await here.loaded(), b'{"x/y":"text"}')
    assert (error.problem.slug, error.problem.status) == ("schema-violation", 422)
    assert error.members == {
        "violations": [
            {"pointer": "/payload", "message": "must have the member z"},
            {"pointer": "/payload/x~1y", "message": "must be of type integer"},
        ],
        "schema_version": 3,
    }
    (await here.loaded()).check("a", b'{"x/y":1,"z":null}')
    (await here.loaded()).check("b", b'"another type"')


async def test_live_and_test_and_organizations_are_apart(here: Here) -> None:
    here.control.put(ACME, "a", 1, INTEGER)
    refused(await here.loaded(), b'"x"')
    (await here.loaded(ACME, "test")).check("a", b'"x"')
    (await here.loaded(OTHER)).check("a", b'"x"')


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        (b'{"maximum":9007199254740992}', b"9007199254740992", b"9007199254740993"),
        (b'{"maximum":0.1}', b"0.1", b"0.1000000000000000000001"),
        (b'{"multipleOf":0.01}', b"19.99", b"19.999"),
        (b'{"multipleOf":0.1}', b"1e300", b"0.05"),
        (b'{"const":100000000000000000000000000000001}', b"100000000000000000000000000000001", b"100000000000000000000000000000002"),
        (b'{"enum":[1.10]}', b"1.1", b"1.1000000000000000000000001"),
        (b'{"type":"integer"}', b"1.0", b"1.5"),
        (b'{"type":"integer"}', b"-0", b"1e-5"),
        (b'{"uniqueItems":true}', b"[1.1,1.10000000000000000001]", b"[1,1.0]"),
        (b'{"exclusiveMinimum":0}', b"1e-999", b"-0.0"),
    ],
)
async def test_numbers_are_compared_with_every_digit(here: Here, schema: bytes, valid: bytes, invalid: bytes) -> None:
    here.control.put(ACME, "a", 1, schema)
    copy = await here.loaded()
    copy.check("a", valid)
    refused(copy, invalid)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b'{"a":1,"a":"x"}', "a name twice"),
        (b"9" * 5_000, "too many digits"),
        (b"0." + b"9" * 1_000, "digits"),
        (b"1e99999999999999999999", "too large or too small"),
        (b"1e-1002", "too large or too small"),
        (b"[" * 5_000 + b"]" * 5_000, "too deep"),
    ],
)
async def test_what_cannot_be_checked_exactly_is_refused_where_there_is_a_schema(here: Here, payload: bytes, says: str) -> None:
    here.control.put(ACME, "a", 1, b'{"items":{"$ref":"#"}}')
    (only,) = refused(await here.loaded(), payload).members["violations"]
    assert only["pointer"] == "/payload"
    assert says in only["message"]
    (await here.loaded()).check("without", payload)


async def test_the_deepest_payload_there_can_be_is_checked(here: Here) -> None:
    here.control.put(ACME, "a", 1, b'{"items":{"$ref":"#"},"type":"array"}')
    copy = await here.loaded()
    copy.check("a", b"[" * NESTING_MAX + b"]" * NESTING_MAX)
    (only,) = refused(copy, b"[" * NESTING_MAX + b"1" + b"]" * NESTING_MAX).members["violations"]
    assert only["message"] == "must be of type array"


async def test_a_changed_epoch_is_followed_at_once_and_texts_are_not_sent_again(here: Here) -> None:
    here.control.put(ACME, "a", 1, INTEGER)
    here.control.put(ACME, "b", 1, b'{"type":"object"}')
    (await here.loaded()).check("a", b"1")
    before = (await here.loaded()).schemas["a"]
    assert here.control.texts_sent == 2
    here.control.put(ACME, "b", 2, b'{"type":"string"}')
    here.changes += 1
    assert here.known() is None
    after = await here.loaded()
    after.check("b", b'"x"')
    assert after.schemas["a"] is before  # compiled already
    assert here.control.texts_sent == 3
    del here.control.schemas[ACME, "live"]["a"]
    here.control.version += 1
    here.changes += 1
    (await here.loaded()).check("a", b'"x"')


async def test_without_redis_a_change_is_followed_within_five_seconds(here: Here) -> None:
    await here.loaded()
    here.control.put(ACME, "a", 1, INTEGER)
    here.clock.now_s += 4.9
    assert here.known() is not None
    here.clock.now_s += 0.2
    assert here.known() is None
    refused(await here.loaded(), b'"x"')


async def test_one_small_query_renews_the_copies_of_all_organizations(here: Here) -> None:
    many = [OrganizationId(f"org_{n}") for n in range(50)]
    for organization in many:
        await here.loaded(organization)
    here.control.asked.clear()
    here.clock.now_s += 6
    await asyncio.gather(*(here.loaded(organization) for organization in many))
    assert here.control.asked == ["version"]


async def test_callers_who_come_at_once_share_one_load(here: Here) -> None:
    here.control.gate = asyncio.Event()
    waiting = [asyncio.create_task(here.loaded()) for _ in range(20)]
    await asyncio.sleep(0)
    here.control.gate.set()
    await asyncio.gather(*waiting)
    assert here.control.asked == ["org_1/live"]


async def test_a_change_during_a_load_is_seen_by_those_who_wait_for_it(here: Here) -> None:
    here.control.gate = asyncio.Event()
    waiting = asyncio.create_task(here.loaded())
    while not here.control.asked:
        await asyncio.sleep(0)
    here.control.put(ACME, "a", 1, INTEGER)  # after what is being answered was read
    here.changes += 1
    here.control.gate.set()
    refused(await waiting, b'"x"')


@pytest.mark.parametrize("how", ["away", "stuck"])
async def test_without_postgres_the_last_copy_goes_on_and_nobody_waits_for_it(
    here: Here, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_ANSWER_S", 0.01)
    here.control.put(ACME, "a", 1, INTEGER)
    await here.loaded()
    setattr(here.control, how, True)
    here.changes += 1
    refused(await here.loaded(), b'"x"')  # this one had to find out
    for _ in range(3):
        here.clock.now_s += 3_600
        here.changes += 1
        refused(here.known(), b'"x"')
        await asyncio.gather(*here.catalogue._loading.values())
    setattr(here.control, how, False)
    here.control.put(ACME, "a", 2, b"{}")
    here.clock.now_s += 3_600
    assert here.known() is not None  # starts a load behind the back of whoever asks
    await asyncio.gather(*here.catalogue._loading.values())
    copy = here.known()
    assert copy is not None
    copy.check("a", b'"x"')


async def test_without_postgres_and_without_a_copy_it_is_unavailable_and_not_asked_at_every_request(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.control.away = True
    tried = 0
    real = here.control.connection

    def counted() -> Any:
        nonlocal tried
        tried += 1
        return real()

    monkeypatch.setattr(here.control, "connection", counted)
    for _ in range(20):
        with pytest.raises(ProblemError) as caught:
            await here.loaded()
        assert (caught.value.problem.slug, caught.value.members) == ("unavailable", {"outcome": "not_appended"})
    assert tried == 1
    here.control.away = False
    here.clock.now_s += 1.1
    await here.loaded()


async def test_the_copies_that_were_not_used_for_longest_are_dropped(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_COPIES_MAX", 3)
    for n in range(3):
        await here.loaded(OrganizationId(f"org_{n}"))
    assert here.known(OrganizationId("org_0")) is not None
    await here.loaded(OrganizationId("org_3"))
    assert [here.known(OrganizationId(f"org_{n}")) is not None for n in range(4)] == [True, False, True, True]
    monkeypatch.setattr(catalogue, "_COPIES_BYTES_MAX", 100)
    here.control.put(ACME, "a", 1, json.dumps({"title": "x" * 200}).encode())
    here.changes += 1
    await here.loaded(ACME)
    assert len(here.catalogue._copies) == 1
    assert here.catalogue._size_bytes == (await here.loaded(ACME)).size_bytes


async def test_a_stored_schema_that_cannot_be_read_refuses_its_type_only(here: Here) -> None:
    here.control.put(ACME, "a", 1, b'{"type":"made-up"}')
    copy = await here.loaded()
    assert refused(copy, b"1").problem.slug == "unavailable"
    copy.check("b", b"1")
