"""The catalogue of event types over HTTP, on the whole running system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runtime.postgres import connect
from schemas.problems import TYPE_PREFIX
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System

SCHEMA = b'{ "type":"object", "required":["order"],\n "properties":{"order":{"type":"integer"},"a/b":{"items":{"minimum":1.50}}} }'
STRICTER = {"type": "object", "required": ["order", "amount"]}


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "event types")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


def put(client: httpx.Client, name: str, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.put(f"/event-types/{name}", content=content, headers={"Content-Type": "application/json", **headers})


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == TYPE_PREFIX + slug
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def test_a_type_is_made_changed_shown_with_its_versions_and_deleted(client: httpx.Client, system: System, tenant: Tenant) -> None:
    made = put(client, "order.paid", b'{"description":"Paid","schema":' + SCHEMA + b"}")
    assert (made.status_code, made.headers["location"]) == (201, "/event-types/order.paid")
    assert (made.json()["schema_version"], made.json()["warnings"]) == (1, [])
    shown = client.get("/event-types/order.paid")
    assert shown.status_code == 200
    assert SCHEMA in shown.content, "byte for byte"
    assert shown.json()["description"] == "Paid"

    changed = put(client, "order.paid", {"schema": STRICTER})
    assert (changed.status_code, changed.json()["schema_version"], changed.json()["description"]) == (200, 2, "Paid")
    assert {"pointer": "/required", "change": "now required: amount"} in changed.json()["warnings"]
    assert put(client, "order.paid", {"schema": STRICTER}).json()["schema_version"] == 2
    put(client, "order.placed", {})
    listed = client.get("/event-types", params={"limit": 1}).json()
    assert ([one["type"] for one in listed["event_types"]], listed["next"]) == (["order.paid"], "order.paid")
    assert "schema" not in listed["event_types"][0]
    listed = client.get("/event-types", params={"limit": 1, "after": listed["next"]}).json()
    assert ([one["type"] for one in listed["event_types"]], listed["next"]) == (["order.placed"], None)

    versions = client.get("/event-types/order.paid/versions", params={"limit": 1})
    assert [one["version"] for one in versions.json()["versions"]] == [2]
    versions = client.get("/event-types/order.paid/versions", params={"before": versions.json()["next"]})
    assert SCHEMA in versions.content
    assert versions.json()["next"] is None

    deleted = client.delete("/event-types/order.paid")
    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(client.get("/event-types/order.paid"), 404, "not-found")
    problem(client.delete("/event-types/order.paid"), 404, "not-found")
    assert len(client.get("/event-types/order.paid/versions").json()["versions"]) == 2
    again = put(client, "order.paid", {"schema": {}})
    assert (again.status_code, again.json()["schema_version"]) == (201, 3)
    with connect(system.settings.postgres, application="test") as connection:
        rows = connection.execute(
            "SELECT actor, action FROM control.audit_log WHERE organization = %s AND target = 'order.paid' ORDER BY id",
            (tenant.organization,),
        ).fetchall()
    assert rows == [(f"key:{tenant.key_id}", f"event_type.{what}") for what in ("created", "changed", "deleted", "created")]


def test_live_and_test_and_other_organizations_do_not_see_each_other(client: httpx.Client, system: System, tenant: Tenant) -> None:
    put(client, "a", {"schema": STRICTER})
    for other in (make_key(system.settings, tenant.organization, mode="test"), make_tenant(system.settings, "other")):
        key = {"X-API-Key": other.key}
        unknown = problem(client.get("/event-types/never", headers=key), 404, "not-found")
        foreign = problem(client.get("/event-types/a", headers=key), 404, "not-found")
        assert foreign["detail"] == unknown["detail"].replace("never", "a")
        problem(client.get("/event-types/a/versions", headers=key), 404, "not-found")
        problem(client.delete("/event-types/a", headers=key), 404, "not-found")
        assert client.get("/event-types", headers=key).json() == {"event_types": [], "next": None}
        assert put(client, "a", {}, **key).status_code == 201
        assert client.get("/event-types/a").json()["schema"] == STRICTER


def test_who_sends_or_reads_events_may_read_types_and_only_a_manager_may_change_them(
    client: httpx.Client, system: System, tenant: Tenant
) -> None:
    put(client, "a", {"schema": STRICTER})
    for scope, reads in (("events:write", True), ("inbox:read", True), ("inbox:ack", False), ("endpoints:manage", False)):
        key = {"X-API-Key": make_key(system.settings, tenant.organization, scopes=[scope]).key}
        for path in ("/event-types", "/event-types/a", "/event-types/a/versions"):
            answer = client.get(path, headers=key)
            if reads:
                assert answer.status_code == 200
            else:
                assert "none of the scopes" in problem(answer, 403, "forbidden")["detail"]
        assert "event_types:manage" in problem(put(client, "a", {}, **key), 403, "forbidden")["detail"]
        problem(client.delete("/event-types/a", headers=key), 403, "forbidden")
    manager = {"X-API-Key": make_key(system.settings, tenant.organization, scopes=["event_types:manage"]).key}
    assert client.get("/event-types/a", headers=manager).status_code == 200
    assert put(client, "a", {"schema": None}, **manager).status_code == 200
    problem(httpx.get(f"{system.url}/event-types"), 401, "missing-api-key")
    problem(client.get("/event-types", headers={"X-API-Key": "zap_live_" + "0" * 55}), 401, "invalid-api-key")


@pytest.mark.parametrize(
    ("name", "body", "status", "slug", "says"),
    [
        ("a", b'{"schema":{"properties":{"x/y":{"type":"made-up"}}}}', 422, "invalid-request", "/properties/x~1y/type"),
        ("a", b'{"schema":{"$ref":"file:///etc/passwd"}}', 422, "invalid-request", "only point into this document"),
        ("a", b'{"schema":[]}', 422, "invalid-request", "must be a JSON object"),
        ("a", b'{"schema":"text"}', 422, "invalid-request", "must be a JSON object"),
        ("a", b'{"scheme":{}}', 422, "invalid-request", "scheme"),
        ("a", b'{"description":3}', 422, "invalid-request", "description"),
        ("a", b'{"description":"a\\u0000b"}', 422, "invalid-request", "description must have"),
        ("a", b'{"schema":{"type":"string","type":"null"}}', 422, "invalid-request", "a name twice"),
        ("a", b'{"schema":{"title":"\xff"}}', 400, "malformed-json", "cannot be read"),
        ("a", b'{"schema":', 400, "malformed-json", "cannot be read"),
        ("a", b'{"schema":{"not":' * 1, 400, "malformed-json", "cannot be read"),
        ("a", b'{"schema":{"title":"' + b"x" * 65_536 + b'"}}', 422, "invalid-request", "at most 65536"),
        ("a", b" " * 100_000, 413, "body-too-large", "81920"),
        ("a%20b", b"{}", 422, "invalid-request", "no event type"),
        ("a%00", b"{}", 422, "invalid-request", "no event type"),
        ("%ff", b"{}", 422, "invalid-request", "no event type"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_type_is_refused_and_says_why(
    client: httpx.Client, name: str, body: bytes, status: int, slug: str, says: str
) -> None:
    assert says in json.dumps(problem(put(client, name, body), status, slug))
    assert client.get("/event-types").json()["event_types"] == []


def test_what_is_asked_for_wrongly_is_a_problem_too(client: httpx.Client) -> None:
    problem(client.put("/event-types/a", content=b"{}"), 415, "unsupported-media-type")
    problem(client.get("/event-types", params={"limit": 0}), 400, "invalid-parameter")
    problem(client.get("/event-types", params={"after": "\0"}), 400, "invalid-parameter")
    for method in ("GET", "DELETE"):
        problem(client.request(method, "/event-types/a%00"), 404, "not-found")
    problem(client.get("/event-types/a%00/versions"), 404, "not-found")
    problem(client.post("/event-types/a"), 405, "method-not-allowed")


def test_openapi_shows_each_call_with_examples(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    shown = {(path, method) for path in paths if path.startswith("/event-types") for method in paths[path]}
    assert shown == {
        ("/event-types", "get"), ("/event-types/{event_type}/versions", "get"),
        *(("/event-types/{event_type}", method) for method in ("get", "put", "delete")),
    }  # fmt: skip
    for path, method in shown:
        for status, response in paths[path][method]["responses"].items():
            if status not in ("204", "422"):
                content = next(iter(response["content"].values()))
                assert content.get("example") or content.get("examples"), (path, method, status)


def test_a_schema_is_enforced_at_ingest_at_once_and_until_it_is_taken_away(client: httpx.Client, system: System, tenant: Tenant) -> None:
    def post(payload: bytes, **headers: str) -> httpx.Response:
        content = b'{"type":"order.paid","payload":' + payload + b"}"
        return client.post("/events", content=content, headers={"Content-Type": "application/json", **headers})

    assert post(b'"anything"').status_code == 201
    put(client, "order.paid", b'{"schema":' + SCHEMA + b"}")
    document = problem(post(b'{"order":9007199254740993.5,"a/b":[2,1.4999999999999999999999]}'), 422, "schema-violation")
    assert document["schema_version"] == 1
    assert document["violations"] == [
        {"pointer": "/payload/order", "message": "must be of type integer"},
        {"pointer": "/payload/a~1b/1", "message": "must be at least 1.50"},
    ]
    assert post(b'{"order":1,"a/b":[1.5]}').status_code == 201
    assert client.post("/events", json={"type": "another", "payload": "anything"}).status_code == 201
    test_mode = make_key(system.settings, tenant.organization, mode="test").key
    assert post(b'"anything"', **{"X-API-Key": test_mode}).status_code == 201
    put(client, "order.paid", {"schema": STRICTER})
    assert problem(post(b'{"order":1}'), 422, "schema-violation")["schema_version"] == 2
    client.delete("/event-types/order.paid")
    assert post(b'"anything"').status_code == 201
