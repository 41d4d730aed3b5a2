"""Real answers of the running system, each held to what docs/openapi.json says of it: status, headers, media type, every member."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import pytest

from tests.backends import Servers
from tests.contract_document import Operation, conforms, operation_of, operations, published, resolved, validator
from tests.flow.operator_token import make_operator
from tests.flow.test_ingest import standing_still
from triggers.devstack.ports import free_ports
from triggers.provision import Tenant, make_endpoint, make_key, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

EVENT = {"type": "order.paid", "payload": {"order": 17}}
CLOUDEVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"order": 17}}
JSON = {"Content-Type": "application/json"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


class Caller:
    """A client whose every answer is held to the contract. `seen`: (operation, status) of all answers that were good."""

    seen: ClassVar[set[tuple[str, int]]] = set()

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = httpx.Client(base_url=url, headers=headers, timeout=15, event_hooks={"response": [self._check]})

    def _check(self, answer: httpx.Response) -> None:
        answer.read()
        conforms(answer)
        if answer.is_success:
            operation = operation_of(answer.request.method, answer.request.url.path)
            self.seen.add((operation.document["operationId"], answer.status_code))

    def __call__(self, status: int, method: str, path: str, problem: str | None = None, **more: Any) -> httpx.Response:
        answer = self._client.request(method, path, **more)
        assert answer.status_code == status, answer.text
        if problem is not None:
            assert answer.json()["type"] == f"urn:triggers:problem:{problem}"
        return answer

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "contract")


@pytest.fixture(scope="module")
def ask(system: System, tenant: Tenant) -> Iterator[Caller]:
    caller = Caller(system.url, {"X-API-Key": tenant.key})
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def operate(system: System) -> Iterator[Caller]:
    caller = Caller(system.url, {"Authorization": f"Bearer {make_operator(system.settings)}"})
    yield caller
    caller.close()


def accepted(ask: Caller, event_id: str) -> dict[str, Any]:
    until(lambda: ask(200, "GET", f"/events/{event_id}").json()["status"] == "accepted", 30, "the event", 0.2)
    found: dict[str, Any] = ask(200, "GET", f"/events/{event_id}").json()
    return found


def test_posting_in_every_format(ask: Caller) -> None:
    ask(201, "POST", "/events", json=EVENT)
    keyed = ask(201, "POST", "/events", json=EVENT, headers={"Idempotency-Key": '"contract-1"'})
    duplicate = ask(409, "POST", "/events", "duplicate-event", json={**EVENT, "idempotency_key": "contract-1"})
    assert duplicate.headers["location"] == keyed.headers["location"]
    ask(422, "POST", "/events", "idempotency-key-reused", json={**EVENT, "subject": "another", "idempotency_key": "contract-1"})
    ask(201, "POST", "/events", content=json.dumps(CLOUDEVENT), headers=STRUCTURED)
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/shop", "ce-type": "order.paid", "Content-Type": "text/plain"}
    ask(201, "POST", "/events", content="seventeen", headers=binary)
    ask(201, "POST", "/events", content=gzip.compress(json.dumps(EVENT).encode()), headers={**JSON, "Content-Encoding": "gzip"})
    mixed = ask(200, "POST", "/events/batch", json=[EVENT, {"type": "no payload"}, {**EVENT, "idempotency_key": "contract-1"}]).json()
    assert [result["status"] for result in mixed["results"]] == [201, 422, 409]
    ask(200, "POST", "/events/batch", content=f"{json.dumps(EVENT)}\n{{]\n", headers={"Content-Type": "application/x-ndjson"})
    many = json.dumps([{**CLOUDEVENT, "id": "3"}, CLOUDEVENT])
    ask(200, "POST", "/events/batch", content=many, headers={"Content-Type": "application/cloudevents-batch+json"})


@pytest.mark.parametrize("operation", [one for one in operations() if one.path.startswith("/events") and one.method == "POST"])
def test_every_documented_body_is_taken(operation: Operation, system: System) -> None:
    mine = Caller(system.url, {"X-API-Key": make_tenant(system.settings, "contract, examples").key})
    binary = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.paid"}
    good = min(int(status) for status in operation.document["responses"])
    for media_type, content in operation.document["requestBody"]["content"].items():
        for example in content["examples"].values():
            body = example["value"] if isinstance(example["value"], str) else json.dumps(example["value"])
            attributes = binary if media_type == "application/octet-stream" else {}
            answer = mine(good, "POST", operation.path, content=body, headers={"Content-Type": media_type, **attributes}).json()
            assert answer.get("refused", 0) == 0
    mine.close()


def test_posting_what_is_refused(ask: Caller, operate: Caller, system: System, tenant: Tenant) -> None:
    for path in ("/events", "/events/batch"):
        ask(400, "POST", path, "malformed-json", content="[", headers=JSON)
        ask(400, "POST", path, "invalid-body", content="no gzip", headers={**JSON, "Content-Encoding": "gzip"})
        ask(413, "POST", path, "body-too-large", content=b" " * 6_000_000, headers=JSON)
        ask(415, "POST", path, "unsupported-media-type", content="a", headers={"Content-Type": "text/plain"})
        ask(415, "POST", path, "unsupported-media-type", content="a", headers={**JSON, "Content-Encoding": "br"})
        ask(401, "POST", path, "invalid-api-key", json=EVENT, headers={"X-API-Key": "zap_live_wrong"})
        ask(403, "POST", path, "forbidden", json=EVENT, headers={"X-API-Key": key_of(system, tenant, "inbox:read")})
        ask(400, "POST", path, "invalid-header", json=EVENT, headers=[("X-API-Key", tenant.key)] * 2)
    ask(400, "POST", "/events", "invalid-header", content=json.dumps(CLOUDEVENT), headers={**STRUCTURED, "Idempotency-Key": "a"})
    ask(413, "POST", "/events", "payload-too-large", json={"type": "a", "payload": "x" * 262_144})
    ask(422, "POST", "/events", "invalid-event", json={"type": "a"})
    ask(422, "POST", "/events", "invalid-event", content='{"type":"a","payload":{"b":1,"b":2}}', headers=JSON)
    ask(422, "POST", "/events/batch", "invalid-request", json=[])
    small = make_tenant(system.settings, "contract, small")
    operate(200, "PATCH", f"/operator/organizations/{small.organization}", json={"rate_limit_per_minute": 1})
    for status, problem in ((201, None), (429, "quota-exceeded")):
        ask(status, "POST", "/events", problem, json=EVENT, headers={"X-API-Key": small.key})
    suspended = make_tenant(system.settings, "contract, suspended")
    operate(200, "PATCH", f"/operator/organizations/{suspended.organization}", json={"suspended": True})
    for method, path in (("POST", "/events"), ("GET", "/inbox"), ("GET", "/event-types")):
        ask(403, method, path, "organization-suspended", headers={"X-API-Key": suspended.key})


def test_what_the_server_refuses_before_any_route(ask: Caller, system: System) -> None:
    nobody = Caller(system.url, {})
    for path in ("/", "/inbox", "/health"):
        ask(414, "GET", path, "uri-too-long", params={"x": "x" * 9_000})
        ask(431, "GET", path, "headers-too-large", headers={"X-Long": "x" * 17_000})
        ask(400, "GET", path, "malformed-request", headers={"Host": "no host"})
    for method, path in (("GET", "/inbox"), ("POST", "/events"), ("POST", "/inbox/ack"), ("GET", "/event-types"), ("GET", "/endpoints")):
        nobody(401, method, path, "missing-api-key")
    nobody(401, "GET", "/operator/audit", "missing-operator-token")
    nobody.close()


@pytest.mark.parametrize(("method", "path", "name"), [("GET", "/nothing", "NoSuchPath"), ("DELETE", "/events/batch", "MethodNotAllowed")])
def test_what_no_operation_answers(method: str, path: str, name: str, system: System) -> None:
    answer = httpx.request(method, system.url + path)
    documented = published()["components"]["responses"][name]
    assert answer.headers["content-type"] in documented["content"]
    assert validator(documented["content"][answer.headers["content-type"]]["schema"], strict=True).is_valid(answer.json())
    for header, reference in documented["headers"].items():
        assert not resolved(reference)["required"] or header in answer.headers


def test_reading_and_acknowledging(ask: Caller, system: System, receiver: Receiver) -> None:
    tenant = make_tenant(system.settings, "contract, reader")
    mine = Caller(system.url, {"X-API-Key": tenant.key})
    make_endpoint(system.settings, tenant.organization, receiver.url())
    make_endpoint(system.settings, tenant.organization, f"http://127.0.0.1:{free_ports(1)[0]}/nobody")
    event_id = mine(201, "POST", "/events", json={**EVENT, "occurred_at": "2026-11-24T02:31:23Z"}).json()["id"]
    mine(201, "POST", "/events", content=json.dumps(CLOUDEVENT), headers=STRUCTURED)
    of_bytes = {**{name: value for name, value in CLOUDEVENT.items() if name != "data"}, "id": "2", "datacontenttype": "image/png"}
    last = mine(201, "POST", "/events", content=json.dumps({**of_bytes, "data_base64": "iVBORw0KGgo="}), headers=STRUCTURED).json()["id"]
    accepted(mine, last)
    until(lambda: len(attempts(mine, event_id)) >= 2, 30, "an attempt at each endpoint", 0.2)
    assert {attempt["outcome"] for attempt in attempts(mine, event_id)} == {"delivered", "failed"}
    page = mine(200, "GET", "/inbox", params={"limit": 1}).json()
    mine(200, "GET", "/inbox", params={"cursor": page["next_cursor"], "wait": 0.1})
    mine(200, "GET", "/inbox", params={"cursor": "now", "status": "all", "type": "order.paid"})
    mine(400, "GET", "/inbox", "invalid-cursor", params={"cursor": "AQ"})
    for bad in ({"limit": 0}, {"wait": 31}, {"status": "new"}, {"type": "no type"}, {"type": "\0"}):
        mine(400, "GET", "/inbox", "invalid-parameter", params=bad)
    acked = mine(200, "POST", "/inbox/ack", json={"ids": [event_id, "evt_unknown", "\0"]}).json()
    assert (acked["acknowledged"], acked["failed"]) == (1, 2)
    mine(200, "GET", "/inbox", params={"status": "acked"})
    assert accepted(mine, event_id)["ack"] is not None
    mine(422, "POST", "/inbox/ack", "invalid-request", json={"ids": []})
    mine(400, "POST", "/inbox/ack", "malformed-json", content="{", headers=JSON)
    mine(415, "POST", "/inbox/ack", "unsupported-media-type", content="{}")
    mine(413, "POST", "/inbox/ack", "body-too-large", content=b" " * 17_000, headers=JSON)
    mine(404, "GET", "/events/evt_unknown", "not-found")
    ask(404, "GET", f"/events/{event_id}", "not-found")
    mine.close()


def test_event_types(ask: Caller) -> None:
    schema = {"type": "object", "required": ["order"]}
    ask(201, "PUT", "/event-types/checked", json={"schema": schema, "description": "Orders"})
    ask(200, "PUT", "/event-types/checked", json={"schema": {**schema, "required": ["order", "amount"]}})
    ask(422, "POST", "/events", "schema-violation", json={"type": "checked", "payload": {}})
    ask(422, "PUT", "/event-types/checked", "invalid-request", json={"schema": {"type": "none"}})
    assert "triggers." in ask(422, "PUT", "/event-types/triggers.mine", "invalid-request", json={}).json()["detail"]
    ask(200, "GET", "/event-types/checked")
    ask(200, "GET", "/event-types")
    ask(200, "GET", "/event-types/checked/versions")
    ask(400, "GET", "/event-types", "invalid-parameter", params={"limit": 0})
    ask(204, "DELETE", "/event-types/checked")
    for method, path in (("GET", "/event-types/checked"), ("DELETE", "/event-types/checked"), ("GET", "/event-types/never/versions")):
        ask(404, method, path, "not-found")


def test_endpoints(ask: Caller, system: System, tenant: Tenant, receiver: Receiver) -> None:
    mine = Caller(system.url, {"X-API-Key": make_tenant(system.settings, "contract, endpoints").key})
    for name, method, path in (
        ("create_endpoint", "POST", ""),
        ("change_endpoint", "PATCH", "/{}"),
        ("rotate_endpoint_secret", "POST", "/{}"),
    ):
        (operation,) = [one for one in operations() if one.document["operationId"] == name]
        for media_type, content in operation.document["requestBody"]["content"].items():
            for example in content["examples"].values():
                one = mine(201, "POST", "/endpoints", json={"url": receiver.url()}).json()["id"]
                full = f"/endpoints{path.format(one)}{'/rotate-secret' if 'rotate' in name else ''}"
                body = json.dumps(resolved(example)["value"])
                mine(201 if method == "POST" and not path else 200, method, full, content=body, headers={"Content-Type": media_type})
    made = mine(201, "POST", "/endpoints", json={"url": receiver.url(), "event_types": ["contract.*"], "headers": {"X-A": "1"}})
    path = made.headers["location"]
    mine(200, "POST", f"{path}/rotate-secret")
    mine(200, "GET", path)
    first = mine(200, "GET", "/endpoints", params={"limit": 1}).json()
    mine(200, "GET", "/endpoints", params={"limit": 1, "after": first["next"]})
    mine(201, "POST", "/events", json={**EVENT, "type": "contract.taken"})
    until(lambda: mine(200, "GET", f"{path}/attempts").json()["attempts"], 30, "an attempt", 0.2)
    mine(200, "GET", f"{path}/attempts", params={"outcome": "failed", "limit": 1})
    assert mine(200, "GET", f"{path}/held").json() == {"held": 0, "first_event_id": None, "last_event_id": None}
    mine(200, "POST", f"{path}/disable")
    missed = [mine(201, "POST", "/events", json={**EVENT, "type": "contract.missed"}).json()["id"] for _ in range(2)]
    until(lambda: mine(200, "GET", f"{path}/held").json()["held"] == 2, 60, "what was missed being counted", 0.2)
    held = {"held": 2, "first_event_id": missed[0], "last_event_id": missed[1]}
    assert mine(200, "GET", f"{path}/held").json() == held
    mine(409, "POST", f"{path}/recover", "not-possible", json={"since": "2026-01-01T00:00:00Z"})
    mine(409, "POST", f"{path}/retry", "not-possible", json={"event_id": missed[0]})
    mine(202, "POST", f"{path}/test")
    assert mine(200, "POST", f"{path}/enable").json()["missed"]["deliveries"] == 2
    tested = mine(202, "POST", f"{path}/test", json={"type": "contract.test", "payload": {"n": 1}}).headers["location"]
    until(lambda: mine(200, "GET", tested).json()["attempts"], 30, "the test", 0.2)
    mine(202, "POST", f"{path}/retry", json={"event_id": missed[0]})
    mine(202, "POST", f"{path}/recover", json={"since": "2026-01-01T00:00:00Z"})
    mine(404, "POST", f"{path}/retry", "not-found", json={"event_id": "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"})
    mine(422, "POST", f"{path}/recover", "invalid-request", json={"since": "yesterday"})
    mine(422, "POST", f"{path}/test", "invalid-request", json={"type": "triggers.endpoint.failing"})
    for what, asked in (("test", {}), ("retry", {"event_id": missed[0]}), ("recover", {"since": "2026-01-01T00:00:00Z"})):
        mine(400, "POST", f"{path}/{what}", "malformed-json", content="{", headers=JSON)
        mine(415, "POST", f"{path}/{what}", "unsupported-media-type", content="{}")
        ask(404, "POST", f"{path}/{what}", "not-found", json=asked)
    for method, rest in (("GET", ""), ("GET", "/held"), ("GET", "/attempts"), ("PATCH", ""), ("POST", "/enable"), ("DELETE", "")):
        ask(404, method, path + rest, "not-found", **({"json": {}} if method == "PATCH" else {}))
    mine(422, "PATCH", path, "invalid-request", json={"url": "ftp://x.example"})
    mine(422, "POST", "/endpoints", "invalid-request", json={"url": receiver.url(), "headers": {"Cookie": "a=1"}})
    mine(415, "PATCH", path, "unsupported-media-type", content="{}")
    mine(413, "POST", "/endpoints", "body-too-large", content=b" " * 132_000, headers=JSON)
    mine(400, "POST", f"{path}/rotate-secret", "malformed-json", content="{", headers=JSON)
    mine(400, "GET", "/endpoints", "invalid-parameter", params={"after": "\0"})
    mine(400, "GET", f"{path}/attempts", "invalid-parameter", params={"before": -1})
    for _ in range(3):
        mine(200, "POST", f"{path}/rotate-secret", json={"overlap_s": 60})
    mine(409, "POST", f"{path}/rotate-secret", "not-possible", json={})
    reader = Caller(system.url, {"X-API-Key": key_of(system, tenant, "inbox:read")})
    own = ask(201, "POST", "/endpoints", json={"url": receiver.url(), "headers": {"X-A": "1"}}).headers["location"]
    assert "headers" not in reader(200, "GET", own).json()
    reader(403, "DELETE", own, "forbidden")
    reader.close()
    for one in (path, own):
        (mine if one == path else ask)(204, "DELETE", one)
    assert mine(200, "GET", f"{path}/held").json() == held, "what a deleted endpoint missed can still be read"
    mine.close()


def test_operating(operate: Caller) -> None:
    organization = operate(201, "POST", "/operator/organizations", json={"name": "Acme"}).json()["id"]
    operate(200, "GET", f"/operator/organizations/{organization}")
    operate(200, "GET", "/operator/organizations", params={"limit": 1})
    operate(200, "POST", f"/operator/organizations/{organization}/erasures", json={"subject": "jane@example.com"})
    made = operate(201, "POST", f"/operator/organizations/{organization}/keys", json={"name": "shop", "scopes": ["events:write"]})
    key = made.json()["id"]
    operate(200, "GET", f"/operator/organizations/{organization}/keys")
    operate(200, "GET", f"/operator/keys/{key}")
    operate(201, "POST", f"/operator/keys/{key}/rotate", json={})
    operate(200, "DELETE", f"/operator/keys/{key}")
    operate(409, "POST", f"/operator/keys/{key}/rotate", "not-possible", json={})
    operate(200, "GET", "/operator/audit", params={"organization": organization})
    operate(404, "GET", f"/operator/keys/{key[:-4]}0000", "not-found")
    operate(400, "GET", "/operator/keys/key", "invalid-parameter")
    operate(422, "POST", "/operator/organizations", "invalid-request", json={"name": ""})
    operate(415, "POST", "/operator/organizations", "unsupported-media-type", content="{}")
    operate(403, "GET", "/operator/audit", "forbidden", headers={"X-API-Key": "any"})
    operate(401, "GET", "/operator/audit", "invalid-operator-token", headers={"Authorization": "Bearer zap_op_wrong"})


def test_replaying(operate: Caller, system: System, tenant: Tenant, receiver: Receiver) -> None:
    endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url("/replayed"))
    mine = {"organization": tenant.organization, "endpoint_id": endpoint}
    operate(200, "POST", "/operator/replays", json={**mine, "dry_run": True})
    replay = f"/operator/replays/{operate(202, 'POST', '/operator/replays', json=mine).json()['id']}"
    operate(200, "GET", "/operator/replays", params={"organization": tenant.organization})
    operate(200, "GET", replay)
    operate(200, "PATCH", replay, json={"state": "cancelled"})
    operate(409, "PATCH", replay, "not-possible", json={"state": "running"})
    operate(404, "GET", "/operator/replays/rnd_01a20b40-2613-7e81-8b4f-01a3759c2793", "not-found")
    operate(404, "POST", "/operator/replays", "not-found", json={**mine, "mode": "test"})
    operate(422, "POST", "/operator/replays", "invalid-request", json={**mine, "rate_per_s": 0})
    operate(422, "PATCH", replay, "invalid-request", json={})
    operate(415, "POST", "/operator/replays", "unsupported-media-type", content="{}")
    operate(400, "PATCH", replay, "malformed-json", content="{", headers=JSON)


def test_without_kafka(ask: Caller, servers: Servers) -> None:
    if servers.stack is None:
        pytest.skip("faults are only placed on the embedded stack")
    with standing_still(servers.stack.kafka):
        assert (
            ask(503, "POST", "/events", "outcome-unknown", json={**EVENT, "idempotency_key": "contract-503"}).json()["outcome"] == "unknown"
        )
        until(lambda: ask._client.get("/health/ready").status_code == 503, 10, "readiness saying so", 0.2)
    until(lambda: ask._client.get("/health/ready").status_code == 200, 40, "the API being ready again", 0.2)


def test_every_good_answer_of_every_operation_was_seen(ask: Caller, request: pytest.FixtureRequest) -> None:
    """Last, over what the tests before it saw."""
    for path in ("/", "/health", "/health/ready"):
        ask(200, "GET", path)
    documented = {
        (one.document["operationId"], int(status)) for one in operations() for status in one.document["responses"] if status.startswith("2")
    }
    ran = {item.name for item in request.session.items if item.path == request.path}
    if len(ran) < 10:
        pytest.skip("not all tests of this module were asked for")
    assert Caller.seen == documented


def attempts(ask: Caller, event_id: str) -> list[dict[str, Any]]:
    deliveries = accepted(ask, event_id)["deliveries"]
    return [attempt for delivery in deliveries for attempt in delivery["attempts"]]


def key_of(system: System, tenant: Tenant, scope: str) -> str:
    return make_key(system.settings, tenant.organization, scopes=[scope]).key
