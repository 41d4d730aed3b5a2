"""An operator's day on the whole running system: what is changed over HTTP is what producers and integrators meet at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from access import keys, operators
from runtime.clock import SYSTEM
from runtime.postgres import connect
from schemas import ids
from tests.backends import Servers
from tests.flow.test_ingest import away, standing_still
from triggers.system import System, until


class Desk(NamedTuple):
    client: httpx.Client
    token: str
    operator: str


@pytest.fixture(scope="module")
def desk(system: System) -> Iterator[Desk]:
    with connect(system.settings.postgres, application="tests") as connection:
        operator, token = operators.create(
            connection, ids.operator_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), name="Ada",
            random=os.urandom(keys.RANDOM_BYTES), actor="test",
        )  # fmt: skip
    with httpx.Client(base_url=system.url, headers={"Authorization": f"Bearer {token}"}, timeout=15) as client:
        yield Desk(client, token, operator.id)


def did(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code in (200, 201), answer.text
    document: dict[str, Any] = answer.json()
    return document


def new_key(desk: Desk, organization: str, **changes: Any) -> dict[str, Any]:
    body = {"name": "shop", "scopes": ["events:write", "inbox:read"], **changes}
    return did(desk.client.post(f"/operator/organizations/{organization}/keys", json=body))


def new_organization(desk: Desk) -> str:
    return str(did(desk.client.post("/operator/organizations", json={"name": "Acme", "plan": "enterprise"}))["id"])


def post(system: System, key: str) -> httpx.Response:
    return httpx.post(f"{system.url}/events", json={"type": "a.b", "payload": 1}, headers={"X-API-Key": key}, timeout=15)


def read(system: System, key: str, path: str = "/inbox", address: str | None = None) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=15) as client:
        return client.get(system.url + path, headers={"X-API-Key": key})


def answers(system: System, key: str) -> tuple[int, int]:
    """What the hot path and the read side say to a key."""
    return post(system, key).status_code, read(system, key).status_code


def test_from_an_organization_to_a_revoked_key_every_change_is_effective_at_once(desk: Desk, system: System) -> None:
    acme = new_organization(desk)
    first = new_key(desk, acme)
    assert answers(system, first["key"]) == (201, 200)

    turned = did(desk.client.post(f"/operator/keys/{first['id']}/rotate", json={"overlap_s": 3}))
    second = turned["new"]
    assert turned["effective"] == "now"
    assert answers(system, first["key"]) == (201, 200)
    assert answers(system, second["key"]) == (201, 200)
    until(lambda: answers(system, first["key"]) == (401, 401), 6, "the old key's end")
    assert did(desk.client.get(f"/operator/keys/{first['id']}"))["state"] == "expired"
    assert answers(system, second["key"]) == (201, 200)

    for suspended, expected in ((True, (403, 403)), (False, (201, 200))):
        changed = did(desk.client.patch(f"/operator/organizations/{acme}", json={"suspended": suspended}))
        assert changed["effective"] == "now"
        assert answers(system, second["key"]) == expected
        if suspended:
            assert post(system, second["key"]).json()["type"] == "urn:triggers:problem:organization-suspended"

    assert did(desk.client.delete(f"/operator/keys/{second['id']}"))["effective"] == "now"
    assert answers(system, second["key"]) == (401, 401)

    entries = did(desk.client.get("/operator/audit", params={"organization": acme}))["entries"]
    assert [entry["action"] for entry in entries][::-1] == [
        "organization.created", "api_key.created", "api_key.created", "api_key.rotated", "organization.suspended", "organization.resumed",
        "api_key.revoked",
    ]  # fmt: skip
    assert {entry["actor"] for entry in entries} == {f"operator:{desk.operator}"}


def test_a_key_ends_when_it_was_to_end_and_says_when_it_was_last_used(desk: Desk, system: System) -> None:
    acme = new_organization(desk)
    short, idle = new_key(desk, acme, expires_in_s=3), new_key(desk, acme)
    assert answers(system, short["key"]) == (201, 200)
    until(lambda: answers(system, short["key"]) == (401, 401), 6, "the key's end")
    path = f"/operator/keys/{short['id']}"
    until(lambda: did(desk.client.get(path))["last_used_at"] is not None, 5, "its last use")
    used_at = did(desk.client.get(path))["last_used_at"]
    assert short["created_at"] <= used_at <= short["expires_at"]
    assert did(desk.client.get(f"/operator/keys/{idle['id']}"))["last_used_at"] is None


def test_a_test_key_sees_nothing_live_and_a_key_does_only_what_its_scopes_say(desk: Desk, system: System) -> None:
    acme = new_organization(desk)
    live, test = new_key(desk, acme), new_key(desk, acme, mode="test")
    reader, writer = new_key(desk, acme, scopes=["inbox:read"]), new_key(desk, acme, scopes=["events:write"])
    event = post(system, live["key"]).json()["id"]
    until(lambda: read(system, live["key"], f"/events/{event}").status_code == 200, 20, "the event")
    assert read(system, test["key"], f"/events/{event}").status_code == 404
    assert read(system, test["key"]).json()["events"] == []
    assert answers(system, reader["key"]) == (403, 200)
    assert answers(system, writer["key"]) == (201, 403)
    for key in (live, test, reader, writer):
        assert read(system, key["key"], "/operator/organizations").status_code == 403
        bearer = {"Authorization": f"Bearer {key['key']}"}
        assert httpx.get(f"{system.url}/operator/audit", headers=bearer).status_code == 403
    assert httpx.get(f"{system.url}/inbox", headers={"X-API-Key": desk.token}).status_code == 401


def test_an_address_that_guesses_is_refused_while_keys_known_here_go_on_and_others_notice_nothing(desk: Desk, system: System) -> None:
    known, fresh = (new_key(desk, new_organization(desk))["key"] for _ in range(2))
    guesser = "127.0.0.9"
    assert read(system, known, address=guesser).status_code == 200
    limit = system.settings.access.failed_keys_per_minute_max
    with httpx.Client(base_url=system.url, transport=httpx.HTTPTransport(local_address=guesser), timeout=15) as client:
        codes = [client.get("/inbox", headers={"X-API-Key": f"zap_live_{number:055d}"}).status_code for number in range(limit + 5)]
        refused = client.get("/inbox", headers={"X-API-Key": "zap_live_" + "x" * 55})
    assert codes == [401] * limit + [429] * 5
    assert refused.json()["type"] == "urn:triggers:problem:quota-exceeded"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert read(system, known, address=guesser).status_code == 200
    assert read(system, fresh, address=guesser).status_code == 429
    assert read(system, fresh).status_code == 200


def test_without_redis_a_suspension_is_effective_within_five_seconds(desk: Desk, system: System, servers: Servers) -> None:
    if servers.stack is None:
        pytest.skip("faults are only placed on the embedded stack")
    acme = new_organization(desk)
    key = new_key(desk, acme)["key"]
    assert answers(system, key) == (201, 200)
    with standing_still(servers.stack.redis):
        changed = did(desk.client.patch(f"/operator/organizations/{acme}", json={"suspended": True}))
        assert changed["effective"] == "within 5 s"
        until(lambda: answers(system, key) == (403, 403), 6, "the suspension")
    for _ in range(10):  # Redis still holds what it held before
        assert answers(system, key) == (403, 403)


def test_without_postgres_an_operator_is_told_so_and_served_again_when_it_is_back(desk: Desk, servers: Servers) -> None:
    if servers.stack is None:
        pytest.skip("faults are only placed on the embedded stack")
    assert desk.client.get("/operator/organizations").status_code == 200
    with away(servers.stack.postgres):
        for _ in range(3):
            answer = desk.client.get("/operator/organizations")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:triggers:problem:unavailable")
    until(lambda: desk.client.get("/operator/organizations").status_code == 200, 20, "the operator API", 0.2)


def test_neither_tokens_nor_keys_are_in_any_log(desk: Desk, system: System) -> None:
    key = new_key(desk, new_organization(desk))
    assert answers(system, key["key"]) == (201, 200)
    for name in system.supervisor.names():
        text = system.supervisor.log_path(name).read_text()
        assert desk.token not in text
        assert desk.token[7:] not in text
        assert key["key"] not in text
