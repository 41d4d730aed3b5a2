"""What a producer is answered, on real servers, with each of them there and gone."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from access import api_keys
from runtime.postgres import connect
from schemas.topics import EVENTS_INGESTED
from tests.backends import Servers
from tests.flow.topics import read_topic
from triggers.devstack.server import Server
from triggers.devstack.stack import Stack
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System, argv, until


@pytest.fixture(scope="module")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "ingest")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


@pytest.fixture
def stack(servers: Servers) -> Stack:
    if servers.stack is None:
        pytest.skip("faults are only placed on the embedded stack")
    return servers.stack


@contextmanager
def standing_still(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def away(server: Server) -> Iterator[None]:
    """Killed, and back afterwards. Postgres has many processes: stopping one of them stops nothing."""
    server.kill()
    try:
        yield
    finally:
        server.bring_up()


def certain(answer: httpx.Response) -> bool:
    return answer.status_code == 201 or answer.json()["type"].endswith("duplicate-event")


def post(client: httpx.Client, key: str | None = None, payload: object = 1) -> httpx.Response:
    return client.post("/events", json={"type": "a.b", "payload": payload, **({"idempotency_key": key} if key else {})})


def test_the_same_key_raced_by_many_gives_one_201_and_one_id(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(client, "raced"), range(60)))
    assert sorted({answer.status_code for answer in answers}) == [201, 409]
    assert [answer.status_code for answer in answers].count(201) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_another_event_under_the_key_is_422_and_nothing_is_appended(client: httpx.Client, system: System) -> None:
    event_id = post(client, "reused", {"n": 1}).json()["id"]
    before = len(read_topic(system.settings, EVENTS_INGESTED))
    answer = post(client, "reused", {"n": 2})
    assert (answer.status_code, answer.json()["id"], answer.headers["Location"]) == (422, event_id, f"/events/{event_id}")
    assert len(read_topic(system.settings, EVENTS_INGESTED)) == before


def test_live_and_test_and_organizations_do_not_share_keys_or_events(client: httpx.Client, system: System, tenant: Tenant) -> None:
    others = [make_key(system.settings, tenant.organization, mode="test"), make_tenant(system.settings, "another")]
    first = post(client, "shared").json()["id"]
    for other in others:
        with httpx.Client(base_url=system.url, headers={"X-API-Key": other.key}) as theirs:
            assert post(theirs, "shared").status_code == 201
            assert theirs.get(f"/events/{first}").status_code == 404


def test_a_key_without_the_scope_is_403(system: System, tenant: Tenant) -> None:
    reader = make_key(system.settings, tenant.organization, scopes=["inbox:read"])
    with httpx.Client(base_url=system.url, headers={"X-API-Key": reader.key}) as client:
        assert post(client).status_code == 403
        assert client.post("/inbox/ack", json={"ids": ["evt_x"]}).status_code == 403
        assert client.get("/inbox").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("X-API-Key", "")], 401),
        ([("X-API-Key", "zap_live_" + "0" * 55)], 401),
        ([("X-API-Key", "x" * 10_000)], 401),
        ([("X-API-Key", "zap_live_\xff")], 401),
        ([("X-API-Key", "a"), ("X-API-Key", "b")], 400),
    ],
)
def test_bad_credentials_are_refused_alike(headers: list[tuple[str, str]], status: int, system: System) -> None:
    answer = httpx.post(
        f"{system.url}/events", json={"type": "a", "payload": 1}, headers=[(n.encode(), v.encode("latin-1")) for n, v in headers]
    )
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_revoked_key_is_refused_at_once_while_redis_is_up(system: System) -> None:
    tenant = make_tenant(system.settings, "revoked")
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}) as client:
        assert post(client).status_code == 201
        assert client.get("/inbox").status_code == 200
        _command(system, "key", "revoke", tenant.key_id)
        assert post(client).status_code == 401
        assert post(client, "with a key").status_code == 401
        assert client.get("/inbox").status_code == 401


def test_a_revoked_key_is_refused_within_five_seconds_without_redis_and_stays_refused_with_it(system: System, stack: Stack) -> None:
    tenant = make_tenant(system.settings, "revoked without redis")
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as client:
        assert post(client).status_code == 201
        with standing_still(stack.redis):
            with connect(system.settings.postgres, application="tests") as connection:
                api_keys.revoke(connection, tenant.key_id, actor="test")  # and Redis is not told
            until(lambda: post(client).status_code == 401, 6, "the key being refused")
        for _ in range(20):  # Redis still holds what it held before the revoke
            assert post(client).status_code == 401


def test_a_hung_redis_costs_little_and_the_event_goes_through_once(client: httpx.Client, stack: Stack) -> None:
    event_id = post(client, "hung").json()["id"]
    with standing_still(stack.redis):
        again = post(client, "hung")
        assert again.status_code == 201  # Redis cannot say so; dedup will
    until(lambda: client.get(f"/events/{again.json()['id']}").json()["status"] == "duplicate", 30, "dedup's judgement", 0.2)
    assert client.get(f"/events/{again.json()['id']}").json()["original_id"] == event_id


def test_without_postgres_known_keys_still_post_and_readiness_says_so(client: httpx.Client, stack: Stack) -> None:
    assert post(client).status_code == 201
    with away(stack.postgres):
        assert post(client).status_code == 201
        assert client.get("/inbox").status_code == 503
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["dependencies"]["postgres"]) == (503, "down")
        assert client.get("/health").status_code == 200
    until(lambda: client.get("/health/ready").status_code == 200, 20, "the API being ready again", 0.2)


def test_without_postgres_and_redis_an_unknown_key_is_503_never_401_or_201(system: System, stack: Stack) -> None:
    tenant = make_tenant(system.settings, "unknown to the caches")
    with away(stack.postgres), standing_still(stack.redis):
        answer = httpx.post(f"{system.url}/events", json={"type": "a", "payload": 1}, headers={"X-API-Key": tenant.key}, timeout=15)
        assert answer.status_code == 503
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as client:
        until(lambda: post(client).status_code == 201, 20, "the key being known", 0.2)


def test_without_kafka_a_503_says_what_is_known_and_the_same_key_gives_one_event(
    client: httpx.Client, stack: Stack, system: System
) -> None:
    with standing_still(stack.kafka):
        answer = post(client, "no kafka")
        assert answer.status_code == 503
        assert answer.json()["outcome"] == "unknown"
        assert "Retry-After" in answer.headers
    until(lambda: certain(post(client, "no kafka")), 40, "a certain answer", 0.3)
    named = post(client, "no kafka").json()["id"]
    until(lambda: client.get(f"/events/{named}").json()["status"] == "accepted", 30, "the event", 0.2)
    rows = [event for event in _all(client) if event["id"] == named]
    assert len(rows) == 1
    until(lambda: httpx.get(f"{system.url}/health/ready").status_code == 200, 20, "the API being ready again", 0.2)


def test_a_body_without_end_is_cut_off_at_the_limit(system: System, tenant: Tenant) -> None:
    with socket.create_connection((system.settings.api.host, system.settings.api.port), timeout=10) as raw:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-API-Key: {tenant.key}\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(100):
                raw.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        except OSError:
            pass  # the server has closed its side
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]


def test_the_api_finishes_what_it_has_and_ends_cleanly_on_sigterm(system: System, client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, client, f"term-{n}") for n in range(200)]
        system.supervisor.kill("api", signal.SIGTERM)
        codes = [_outcome(answer.result) for answer in answers]
    assert set(codes) <= {201, "refused"}
    until(lambda: system.supervisor.restart_count("api") >= 1, 20, "the restart")
    system.wait_ready()


def _outcome(result: object) -> object:
    assert callable(result)
    try:
        return result().status_code
    except httpx.TransportError:
        return "refused"


def _command(system: System, *arguments: str) -> None:
    subprocess.run(argv(*arguments), env=system.environment, check=True, capture_output=True)


def _all(client: httpx.Client) -> list[dict[str, object]]:
    events: list[dict[str, object]] = client.get("/inbox", params={"status": "all", "limit": 1000}).json()["events"]
    return events
