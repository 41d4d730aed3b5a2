"""The answers about a key with Redis up, down, hung and restarted empty: an event is never lost and never has two effects."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest

from tests.flow.one_key.callers import became, inbox, settled, slug
from triggers.devstack.server import Server
from triggers.devstack.stack import Stack
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System, until


@pytest.fixture
def bystander(system: System, urls: list[str]) -> Iterator[httpx.Client]:
    """Another organization of the same API."""
    with httpx.Client(base_url=urls[0], headers={"X-API-Key": make_tenant(system.settings, "bystander").key}, timeout=15) as one:
        yield one


@contextmanager
def down(redis: Server) -> Iterator[None]:
    redis.kill()
    try:
        yield
    finally:
        redis.bring_up()


@contextmanager
def hung(redis: Server) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


@contextmanager
def restarted_empty(redis: Server) -> Iterator[None]:
    redis.kill()
    redis.bring_up()
    yield


def post(client: httpx.Client, payload: object, key: str = "k") -> httpx.Response:
    return client.post("/events", json={"type": "a.b", "payload": payload, "idempotency_key": key})


def remembered(client: httpx.Client) -> None:
    """Until the API and Redis speak with each other: after a failure Redis is left alone for a moment."""

    def twice() -> bool:
        key = secrets.token_hex(8)
        return [post(client, 1, key).status_code, post(client, 1, key).status_code] == [201, 409]

    until(twice, 30, "the API using Redis", 0.1)


def certain(client: httpx.Client, payload: object) -> httpx.Response:
    """Asked until the answer names an event that is there: a request that lost Redis on its way may have left a reservation."""
    found: list[httpx.Response] = []

    def ask() -> bool:
        found[:] = [post(client, payload)]
        return found[0].status_code in (201, 422) or slug(found[0].json()) == "duplicate-event"

    until(ask, 40, "a certain answer", 0.2)
    return found[0]


def test_with_redis_up_the_original_is_named_with_the_window(
    system: System, client: httpx.Client, bystander: httpx.Client, tenant: Tenant
) -> None:
    remembered(bystander)
    first = certain(client, 1)
    again, other = certain(client, 1), certain(client, 2)
    assert [first.status_code, again.status_code, other.status_code] == [201, 409, 422]
    assert (slug(again.json()), slug(other.json())) == ("duplicate-event", "idempotency-key-reused")
    for answer in (first, again, other):
        assert answer.json()["id"] == first.json()["id"]
        assert answer.json()["idempotency_window_s"] == 86_400
        assert answer.headers["Location"] == f"/events/{first.json()['id']}"
    assert [record.id for record in settled(system, client, tenant)] == [first.json()["id"]]


@pytest.mark.parametrize("fault", [down, hung, restarted_empty])
def test_a_201_that_lost_while_redis_was_away_says_so_and_redis_comes_back_to_the_same_event(
    fault: Callable[[Server], AbstractContextManager[None]],
    system: System,
    client: httpx.Client,
    bystander: httpx.Client,
    tenant: Tenant,
    stack: Stack,
) -> None:
    remembered(bystander)
    original = certain(client, 1).json()["id"]
    with fault(stack.redis):
        if fault is restarted_empty:
            remembered(bystander)
        began_s = time.monotonic()
        again = post(client, 1)
        assert time.monotonic() - began_s < system.settings.ingest.request_deadline_s
        # After an empty restart the first of the two has the key, and the other event meets it.
        other = post(client, 2)
    created = [answer.json()["id"] for answer in (again, other) if answer.status_code == 201]
    assert again.status_code == 201
    assert other.status_code == (422 if fault is restarted_empty else 201)
    assert original not in created
    assert (became(client, again.json()["id"])["status"], became(client, again.json()["id"])["original_id"]) == ("duplicate", original)
    if other.status_code == 201:
        assert (became(client, other.json()["id"])["status"], became(client, other.json()["id"])["original_id"]) == ("conflict", original)
    else:
        assert other.json()["id"] == again.json()["id"]
    # Redis is there again, with what it kept or with nothing: whatever it names leads to the original.
    last = certain(client, 1)
    if last.status_code != 422:
        found = became(client, last.json()["id"])
        assert found.get("original_id", found["id"]) == original
    settled(system, client, tenant)
    assert [row["id"] for row in inbox(client)] == [original]


def cloudevent(source: str, event: str) -> dict[str, Any]:
    return {"specversion": "1.0", "type": "a.b", "source": source, "id": event, "data": 1}


def test_keys_of_organizations_modes_and_shapes_have_nothing_to_do_with_each_other(
    system: System, urls: list[str], bystander: httpx.Client, tenant: Tenant
) -> None:
    """Every spelling that one kind of key could take for another; the same key in the header is the same key."""
    spellings = ["s1", "c:1:s1", "k:s1", "1:s1", f"{{{tenant.organization}}}:live:s1"]
    others = [make_key(system.settings, tenant.organization, mode="test"), make_tenant(system.settings, "two keys")]
    created: list[str] = []
    remembered(bystander)
    for key in [tenant.key, *(other.key for other in others)]:
        with httpx.Client(base_url=urls[0], headers={"X-API-Key": key}, timeout=15) as caller:
            for spelling in spellings:
                by_body = post(caller, 1, spelling)
                assert by_body.status_code == 201, by_body.text
                by_header = caller.post("/events", json={"type": "a.b", "payload": 1}, headers={"Idempotency-Key": f'"{spelling}"'})
                assert (by_header.status_code, by_header.json()["id"]) == (409, by_body.json()["id"])
                created.append(by_body.json()["id"])
            for source, event in (("s", "1"), ("s1", "1"), ("s", "11"), ("k:s", "1"), ("1:s", "1"), ("c:1:s", "1")):
                answer = caller.post("/events", json=cloudevent(source, event), headers={"Content-Type": "application/cloudevents+json"})
                assert answer.status_code == 201, answer.text
                created.append(answer.json()["id"])
            for event_id in created[-11:]:
                assert became(caller, event_id)["status"] == "accepted"
    assert len(set(created)) == 33
