"""Looking endpoints up: a burst costs one query, a change is seen by whoever asks after it, and who gives up takes nobody along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from delivery.endpoints import Endpoints
from runtime.clock import SYSTEM
from schemas import ids

ID = ids.endpoint_id(1, bytes(10))


class Postgres:
    """Answers when it is let; counts what it is asked. `enabled` is what it says then."""

    def __init__(self) -> None:
        self.asked = 0
        self.url = "https://a.example/"
        self.enabled = True
        self.sealed = b"sealed"
        self.answers = asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self

    async def execute(self, statement: bytes, _values: Any) -> Any:
        if b"UPDATE" in statement:
            return SimpleNamespace(rowcount=1)
        self.asked += 1
        row: Any = (
            ID,
            "org_1",
            "live",
            self.url,
            None,
            {},
            None,
            None,
            "default",
            None,
            None,
            None,
            self.enabled,
            None,
            False,
            False,
            [self.sealed],
            ["key"],
        )
        await self.answers.wait()
        return rows(row) if self.url else rows()


def rows(*found: Any) -> Any:
    async def fetchall() -> list[Any]:
        return list(found)

    return SimpleNamespace(fetchall=fetchall)


def endpoints(postgres: Postgres) -> Endpoints:
    keyring: Any = SimpleNamespace(decrypt=lambda *_: b"secret")
    pool: Any = postgres
    return Endpoints(pool, keyring, SYSTEM, "w", (1.0,))


async def test_a_burst_of_deliveries_to_one_endpoint_is_one_query() -> None:
    postgres = Postgres()
    looked = endpoints(postgres)
    asking = [asyncio.create_task(looked.get(ID)) for _ in range(300)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who began it gives up
    postgres.answers.set()
    found = await asyncio.gather(*asking[1:])
    assert {one.url for one in found if one is not None} == {postgres.url}
    assert len(found) == 299
    assert postgres.asked == 1


async def test_who_asks_after_a_change_is_not_told_what_was_read_before_it() -> None:
    postgres = Postgres()
    looked = endpoints(postgres)
    before = asyncio.create_task(looked.get(ID))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert postgres.asked == 1
    await looked.note_recovered(ID)
    postgres.url = "https://b.example/"
    after = asyncio.create_task(looked.get(ID))
    await asyncio.sleep(0)
    postgres.answers.set()
    old, new, later = await before, await after, await looked.get(ID)
    assert old is not None
    assert new is not None
    assert later is not None
    assert (old.url, new.url, later.url) == ("https://a.example/", "https://b.example/", "https://b.example/")
    assert postgres.asked == 2


async def test_nothing_is_attempted_at_a_disabled_or_a_deleted_endpoint_and_which_it_is_can_be_told() -> None:
    for deleted, why in ((False, "endpoint_disabled"), (True, "endpoint_missing")):
        postgres = Postgres()
        postgres.answers.set()
        postgres.enabled = False
        postgres.url = "" if deleted else postgres.url
        looked = endpoints(postgres)
        assert await looked.get(ID) is None
        assert await looked.why_absent(ID) == why
        assert postgres.asked == 1, "remembered, as an endpoint is that is there"


async def test_an_endpoint_that_is_found_deleted_is_so_for_whoever_asks_next() -> None:
    postgres = Postgres()
    postgres.answers.set()
    looked = endpoints(postgres)
    assert await looked.get(ID) is not None
    postgres.url = ""  # it is deleted
    assert await looked.there([ID]) == {}
    assert await looked.get(ID) is None
    assert await looked.why_absent(ID) == "endpoint_missing"


async def test_batches_that_come_while_a_query_is_under_way_share_the_next_one_and_none_is_answered_by_what_was_read_before() -> None:
    postgres = Postgres()
    looked = endpoints(postgres)
    first = asyncio.create_task(looked.of([("org_1", "live")]))
    await asyncio.sleep(0.01)
    assert postgres.asked == 1
    later = [asyncio.create_task(looked.of([("org_1", "live")])) for _ in range(20)]
    await asyncio.sleep(0.01)
    later.pop().cancel()  # who gives up takes nobody along
    assert postgres.asked == 1
    postgres.enabled = False  # after the first was read, before the others are
    postgres.answers.set()
    assert [one.enabled for one in (await first)["org_1", "live"]] == [True]
    assert {one.enabled for answer in await asyncio.gather(*later) for one in answer["org_1", "live"]} == {False}
    assert postgres.asked == 2


async def test_a_secret_is_opened_once_until_it_changes() -> None:
    postgres = Postgres()
    postgres.answers.set()
    opened: list[bytes] = []

    def decrypt(_key_id: str, sealed: bytes, _owner: bytes) -> bytes:
        opened.append(sealed)
        return sealed

    keyring: Any = SimpleNamespace(decrypt=decrypt)
    pool: Any = postgres
    looked = Endpoints(pool, keyring, SYSTEM, "w", (1.0,))
    for sealed in (b"one", b"one", b"two"):
        postgres.sealed = sealed
        found = await looked.get(ID, fresh=True)
        assert found is not None
        assert found.secrets == (sealed,)
    assert opened == [b"one", b"two"]
