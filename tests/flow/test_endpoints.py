"""Webhook endpoints over HTTP, on the whole running system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from access.endpoint_secrets import secret_text
from runtime.postgres import connect
from schemas import ids
from schemas.problems import TYPE_PREFIX
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System

URL = "https://receiver.example/hooks"
FULL: dict[str, Any] = {
    "url": URL, "description": "Orders", "event_types": ["order.*"], "headers": {"Authorization": "Bearer s3cr3t"},
    "rate_per_minute": 60, "concurrency": 2, "schedule": "standard", "deadline_s": 5,
    "legacy_signature": {"header": "X-Sig", "scheme": "t-v1-hex"},
}  # fmt: skip
NEVER = ids.endpoint_id(1, bytes(10))


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "endpoints")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == TYPE_PREFIX + slug
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def made(client: httpx.Client, **members: Any) -> dict[str, Any]:
    answer = client.post("/endpoints", json={"url": URL, **members})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/endpoints/{document['id']}"
    return document


def test_an_endpoint_is_made_shown_changed_switched_rotated_and_deleted(client: httpx.Client, system: System, tenant: Tenant) -> None:
    new = made(client, **FULL)
    path, secret = f"/endpoints/{new['id']}", new.pop("secret")
    assert secret.startswith("whsec_")
    assert {name: new[name] for name in FULL} == FULL
    assert client.get(path).json() == new
    (listed,) = client.get("/endpoints").json()["endpoints"]
    assert listed == {name: value for name, value in new.items() if name not in ("headers", "secrets")}

    changed = client.patch(path, json={"description": None, "headers": {"X-Shop": "1"}, "schedule_s": [60, 600]})
    assert changed.status_code == 200, changed.text
    assert changed.json()["headers"] == {"Authorization": "Bearer s3cr3t", "X-Shop": "1"}
    assert (changed.json()["description"], changed.json()["schedule"], changed.json()["schedule_s"]) == ("", "custom", [60, 600])
    merge = {"Content-Type": "application/merge-patch+json"}
    assert client.patch(path, content=b'{"event_types":null}', headers=merge).json()["event_types"] is None

    off = client.post(f"{path}/disable")
    assert (off.status_code, off.json()["enabled"], off.json()["disabled_reason"]) == (200, False, "owner")
    assert client.post(f"{path}/enable").json()["enabled"] is True
    rotated = client.post(f"{path}/rotate-secret").json()
    assert rotated["secret"] != secret
    assert [one["number"] for one in rotated["secrets"]] == [2, 1]
    mine = secret_text(b"m" * 40)
    rotated = client.post(f"{path}/rotate-secret", json={"secret": mine, "overlap_s": 0}).json()
    assert (rotated["secret"], [one["number"] for one in rotated["secrets"]]) == (mine, [3])
    for _ in range(4):
        assert client.post(f"{path}/rotate-secret").status_code == 200
    problem(client.post(f"{path}/rotate-secret"), 409, "not-possible")

    deleted = client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert client.get("/endpoints").json() == {"endpoints": [], "next": None}
    for answer in (client.get(path), client.delete(path), client.patch(path, json={}), *map(client.post, actions(path))):
        problem(answer, 404, "not-found")
    assert client.get(f"{path}/attempts").json() == {"attempts": [], "next": None}, "a deleted endpoint's attempts stay readable"

    with connect(system.settings.postgres, application="test") as connection:
        rows = connection.execute(
            "SELECT actor, action, detail::text FROM control.audit_log WHERE target = %s ORDER BY id", (new["id"],)
        ).fetchall()
    assert {actor for actor, _, _ in rows} == {f"key:{tenant.key_id}"}
    assert [action.removeprefix("endpoint.") for _, action, _ in rows] == [
        "created", "updated", "updated", "disabled", "enabled", *["secret_rotated"] * 6, "deleted",
    ]  # fmt: skip
    logs = "".join(file.read_text() for file in system._logs.glob("*.log"))
    for text in (secret, mine, "s3cr3t"):
        assert text not in str(rows)
        assert text not in logs


def actions(path: str) -> list[str]:
    return [f"{path}/{action}" for action in ("enable", "disable", "rotate-secret")]


def test_a_secret_of_the_callers_own_is_kept_as_it_is(client: httpx.Client) -> None:
    mine = secret_text(b"what the old sender signed with")
    assert made(client, secret=mine)["secret"] == mine
    said = problem(client.post("/endpoints", json={"url": URL, "secret": "whsec_hunter2"}), 422, "invalid-request")
    assert "24 to 64 bytes" in said["detail"]
    assert "hunter2" not in str(said)


def test_what_is_not_ones_own_is_answered_as_what_never_was(client: httpx.Client, system: System, tenant: Tenant) -> None:
    path = f"/endpoints/{made(client, **FULL)['id']}"
    for other in (make_key(system.settings, tenant.organization, mode="test"), make_tenant(system.settings, "other")):
        key = {"X-API-Key": other.key}
        said = set()
        for place in (path, f"/endpoints/{NEVER}", "/endpoints/ep_", "/endpoints/%00", "/endpoints/%ff", "/endpoints/" + "x" * 5_000):
            for answer in (
                client.get(place, headers=key),
                client.patch(place, json={"description": "x"}, headers=key),
                client.delete(place, headers=key),
                client.get(f"{place}/attempts", headers=key),
                *(client.post(action, headers=key) for action in actions(place)),
            ):
                document = problem(answer, 404, "not-found")
                del document["request_id"]
                said.add(json.dumps(document))
        assert len(said) == 1
        assert client.get("/endpoints", headers=key).json() == {"endpoints": [], "next": None}
    assert client.get(path).status_code == 200


def test_who_reads_the_inbox_may_read_endpoints_without_header_values_and_only_a_manager_may_change_them(
    client: httpx.Client, system: System, tenant: Tenant
) -> None:
    path = f"/endpoints/{made(client, **FULL)['id']}"
    for scope, reads in (("inbox:read", True), ("inbox:ack", False), ("events:write", False), ("event_types:manage", False)):
        key = {"X-API-Key": make_key(system.settings, tenant.organization, scopes=[scope]).key}
        for place in ("/endpoints", path, f"{path}/attempts"):
            answer = client.get(place, headers=key)
            if reads:
                assert answer.status_code == 200
                assert "s3cr3t" not in answer.text
            else:
                assert "none of the scopes" in problem(answer, 403, "forbidden")["detail"]
        for answer in (
            client.post("/endpoints", json={"url": URL}, headers=key),
            client.patch(path, json={}, headers=key),
            client.delete(path, headers=key),
            *(client.post(action, headers=key) for action in actions(path)),
        ):
            assert "endpoints:manage" in problem(answer, 403, "forbidden")["detail"]
    manager = {"X-API-Key": make_key(system.settings, tenant.organization, scopes=["endpoints:manage"]).key}
    assert "s3cr3t" in client.get(path, headers=manager).text
    problem(httpx.get(f"{system.url}/endpoints"), 401, "missing-api-key")


def test_pages_hold_every_endpoint_once(client: httpx.Client) -> None:
    wanted = sorted(made(client)["id"] for _ in range(3))
    first = client.get("/endpoints", params={"limit": 2}).json()
    assert first["next"] == first["endpoints"][-1]["id"]
    second = client.get("/endpoints", params={"limit": 2, "after": first["next"]}).json()
    assert [one["id"] for one in first["endpoints"] + second["endpoints"]] == wanted
    assert second["next"] is None
    for parameters in ({"limit": 0}, {"after": "\0"}, {"after": "é"}):
        problem(client.get("/endpoints", params=parameters), 400, "invalid-parameter")
    for more in ({"limit": 0}, {"before": -1}, {"before": 2**63}, {"outcome": "maybe"}):
        problem(client.get(f"/endpoints/{wanted[0]}/attempts", params=more), 400, "invalid-parameter")


@pytest.mark.parametrize(
    ("body", "status", "slug", "says"),
    [
        (b"{", 400, "malformed-json", "cannot be read"),
        (b"\xff", 400, "malformed-json", "cannot be read"),
        (b'{"headers":' + b'{"a":' * 20_000, 422, "invalid-request", "nested more than"),
        (b"[]", 422, "invalid-request", "object"),
        (b'{"url":null}', 422, "invalid-request", "url"),
        (b'{"url":"ftp://x.example/"}', 422, "invalid-request", "https://"),
        (b'{"enabled":true}', 422, "invalid-request", "enabled"),
        (b'{"url":"https://x.example/","headers":{"Host":"x"}}', 422, "invalid-request", "set by the sender"),
        (b'{"url":"https://x.example/","event_types":["*.paid"]}', 422, "invalid-request", "no event type"),
        (b'{"url":"https://x.example/","fifo_block":true}', 422, "invalid-request", "belongs to fifo"),
        (b'{"url":"https://x.example/","description":"a\\u0007b"}', 422, "invalid-request", "description"),
        (b'{"description":"a\\u0000b"}', 422, "invalid-request", "U+0000"),
        (b'{"description":"\\ud800"}', 422, "invalid-request", "surrogate"),
        (b" " * 131_073, 413, "body-too-large", "131072"),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(client: httpx.Client, body: bytes, status: int, slug: str, says: str) -> None:
    new = made(client)
    path = f"/endpoints/{new['id']}"
    for answer in (
        client.post("/endpoints", content=body, headers={"Content-Type": "application/json"}),
        client.patch(path, content=body, headers={"Content-Type": "application/json"}),
    ):
        assert says in problem(answer, status, slug)["detail"]
    assert client.get("/endpoints").json()["endpoints"] == [client.get("/endpoints").json()["endpoints"][0]]
    assert client.get(path).json()["updated_at"] == new["updated_at"]


def test_a_body_says_what_it_is(client: httpx.Client) -> None:
    path = f"/endpoints/{made(client)['id']}"
    problem(client.post("/endpoints", content=b"{}"), 415, "unsupported-media-type")
    problem(client.patch(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    problem(client.post(f"{path}/rotate-secret", content=b"{}"), 415, "unsupported-media-type")
    problem(client.post(f"{path}/rotate-secret", json={"overlap_s": 604_801}), 422, "invalid-request")
    problem(client.post(f"{path}/rotate-secret", json={"overlap": 1}), 422, "invalid-request")
    problem(client.put(path, json={}), 405, "method-not-allowed")


def test_openapi_shows_each_call_with_examples(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    shown = {(path, method) for path in paths if path.startswith("/endpoints") for method in paths[path]}
    one = "/endpoints/{endpoint}"
    assert shown == {
        ("/endpoints", "get"), ("/endpoints", "post"), (one, "get"), (one, "patch"), (one, "delete"), (f"{one}/enable", "post"),
        (f"{one}/disable", "post"), (f"{one}/rotate-secret", "post"), (f"{one}/attempts", "get"),
        (f"{one}/held", "get"), (f"{one}/test", "post"), (f"{one}/retry", "post"), (f"{one}/recover", "post"),
    }  # fmt: skip
    for path, method in shown:
        for status, response in paths[path][method]["responses"].items():
            if status not in ("204", "422"):
                content = next(iter(response["content"].values()))
                assert content["examples"], (path, method, status)
        for content in paths[path][method].get("requestBody", {"content": {}})["content"].values():
            assert content["examples"]
