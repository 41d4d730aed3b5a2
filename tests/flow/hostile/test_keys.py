"""Keys that are almost right, over, of the wrong mode or scope, or made up by the thousand (RELIABILITY rows 43 to 47)."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import redis

from access import api_keys, epoch, keys, organizations
from runtime.clock import SYSTEM
from runtime.postgres import connect
from schemas import ids
from tests.flow.hostile.judged import Caller, native
from tests.flow.raw import (
    EVENT_BODY,
    Header,
    RawAnswer,
    RawConnection,
    assert_honest_works,
    assert_problem,
    event_bytes,
    metric,
    nothing_appended,
    request_bytes,
    talk,
)
from triggers.provision import Tenant, make_endpoint, make_key, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

UNKNOWN = "zap_live_" + "0" * 55
#: Wrong keys are counted by address, and these are not the other tests' to pay for.
HERE, THERE, CROWD = "127.0.43.1", "127.0.44.1", [f"127.0.47.{n}" for n in range(1, 5)]
#: What a key is asked at: the hot path, its batch, the read side.
CALLS: tuple[tuple[str, str, bytes], ...] = (
    ("POST", "/events", EVENT_BODY), ("POST", "/events/batch", b"[%b]" % EVENT_BODY), ("GET", "/inbox", b""),
    ("POST", "/inbox/ack", b'{"ids":["evt_x"]}'), ("GET", "/events/evt_x", b""), ("GET", "/event-types", b""),
)  # fmt: skip


def call(method: str, target: str, body: bytes, *headers: Header) -> bytes:
    return request_bytes(method, target, [("Content-Type", "application/json"), *headers], body)


def asked(system: System, key: str | bytes, *, source: str = HERE) -> Iterator[RawAnswer]:
    for method, target, body in CALLS:
        yield talk(system.settings, call(method, target, body, ("X-API-Key", key)), source=source)


def shown(answer: RawAnswer) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
    """All of an answer that does not name the request."""
    document = answer.document
    request_id = document.pop("request_id")
    headers = [(name, value.replace(request_id, "…")) for name, value in answer.headers if name.lower() != "date"]
    return answer.status, document, headers


def swapped(letter: str) -> str:
    return "A" if letter != "A" else "B"


ALMOST: dict[str, Callable[[str], str | bytes]] = {
    "the right prefix": lambda key: key[:12] + "0" * 52,
    "all but the last letter": lambda key: key[:-1] + swapped(key[-1]),
    "one bit": lambda key: key[:20] + (chr(ord(key[20]) ^ 1) if chr(ord(key[20]) ^ 1).isalnum() else chr(ord(key[20]) ^ 2)) + key[21:],
    "one letter short": lambda key: key[:-1],
    "one letter long": lambda key: key + "0",
    "in upper case": str.upper,
    "in lower case": str.lower,
    "of the other mode": lambda key: key.replace("_live_", "_test_"),
    "in quotes": lambda key: f'"{key}"',
    "as a bearer": lambda key: f"Bearer {key}",
    "twice": lambda key: f"{key}, {key}",
    "a line feed, written out": lambda key: key + "%0A",
    "its SHA-256": lambda key: keys.digest(key).hex(),
    "its SHA-256 behind the prefix": lambda key: key[:9] + keys.digest(key).hex()[:55],
    "in base64": lambda key: base64.b64encode(key.encode()),
    "from behind": lambda key: key[::-1],
}


@pytest.mark.parametrize("name", ALMOST)
def test_an_almost_right_key_is_answered_as_an_unknown_one(name: str, system: System, tenant: Tenant) -> None:
    if "one bit" in name:
        assert len([1 for a, b in zip(tenant.key, str(ALMOST[name](tenant.key)), strict=True) if a != b]) == 1
    with nothing_appended(system.settings):
        for almost, unknown in zip(asked(system, ALMOST[name](tenant.key)), asked(system, UNKNOWN), strict=True):
            assert_problem(almost, 401, "invalid-api-key")
            assert shown(almost) == shown(unknown)
    assert_honest_works(system, tenant.key)


def test_a_line_feed_behind_a_key_is_no_part_of_it_and_no_http(system: System, tenant: Tenant) -> None:
    with nothing_appended(system.settings):
        assert_problem(talk(system.settings, event_bytes(tenant.key + "\n")), 400, "malformed-request", closes=True)
    assert talk(system.settings, event_bytes(f"  {tenant.key}\t ")).status == 201


# Over


def changed(system: System, change: Callable[[Any], int]) -> None:
    """A change of the control plane as an operator makes it: committed, then told to the caches."""
    with connect(system.settings.postgres, application="tests") as connection:
        version = change(connection)
    assert epoch.tell_caches(system.settings.redis, version)


def revoked(system: System, tenant: Tenant) -> None:
    changed(system, lambda connection: api_keys.revoke(connection, tenant.key_id, actor="test"))


def expired(system: System, tenant: Tenant) -> None:
    new_id, random = ids.api_key_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), os.urandom(keys.RANDOM_BYTES)
    changed(system, lambda connection: api_keys.rotate(connection, tenant.key_id, new_id, overlap_s=0, random=random, actor="test").version)


@pytest.mark.parametrize("end", [revoked, expired])
def test_a_key_that_is_over_is_answered_as_an_unknown_one_from_then_on(end: Callable[[System, Tenant], None], system: System) -> None:
    over = make_tenant(system.settings, "over")
    assert [answer.status for answer in asked(system, over.key)] == [201, 200, 200, 200, 404, 200]
    end(system, over)
    with nothing_appended(system.settings):
        for answer, unknown in zip(asked(system, over.key, source=THERE), asked(system, UNKNOWN, source=THERE), strict=True):
            assert_problem(answer, 401, "invalid-api-key")
            assert shown(answer) == shown(unknown)
    again = make_key(system.settings, over.organization)
    assert_honest_works(system, again.key)


def test_a_suspended_organization_is_told_so_and_may_do_nothing_until_it_is_resumed(system: System) -> None:
    owner = make_tenant(system.settings, "suspended")
    assert_honest_works(system, owner.key)

    def suspend(suspended: bool) -> None:
        changed(system, lambda c: organizations.update(c, owner.organization, {"suspended": suspended}, actor="test")[1])

    suspend(True)
    with nothing_appended(system.settings):
        for answer in asked(system, owner.key):
            assert_problem(answer, 403, "organization-suspended")
    suspend(False)
    assert_honest_works(system, owner.key)


# Modes and scopes


def test_no_data_crosses_between_live_and_test(system: System) -> None:
    live = make_tenant(system.settings, "modes")
    test = make_key(system.settings, live.organization, mode="test")
    with Receiver() as receiver, Caller(system, live.key) as of_live, Caller(system, test.key) as of_test:
        for mode, path in (("live", "/live"), ("test", "/test")):
            make_endpoint(system.settings, live.organization, receiver.url(path), mode="live" if mode == "live" else "test")
        event = of_live.accepted(of_live.post(native(b'"live"'))).event["id"]
        assert_problem(of_test.get(f"/events/{event}"), 404, "not-found")
        assert of_test.inbox() == {}
        acked = of_test.send(call("POST", "/inbox/ack", json.dumps({"ids": [event]}).encode(), ("X-API-Key", test.key)))
        assert (acked.status, acked.document["failed"], acked.document["results"][0]["status"]) == (200, 1, "unknown")
        assert of_live.inbox()[event]["ack"] == b"null"
        cursor = of_live.get("/inbox?status=all").document["next_cursor"]
        assert_problem(of_test.get(f"/inbox?status=all&cursor={cursor}"), 400, "invalid-cursor")
        of_test.accepted(of_test.post(native(b'"test"')))
        until(lambda: len(receiver.of("/live")) == len(receiver.of("/test")) == 1, 20, "one webhook each")
        assert b'"live"' in receiver.of("/live")[0].body
        assert b'"test"' in receiver.of("/test")[0].body


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("events:write", (0, 1, 5)), ("inbox:read", (2, 4, 5)), ("inbox:ack", (3,)), ("event_types:manage", (5,)), ("endpoints:manage", ())],
)
def test_a_key_does_what_its_scope_says_and_no_more(scope: str, allowed: tuple[int, ...], system: System, tenant: Tenant) -> None:
    narrow = make_key(system.settings, tenant.organization, scopes=[scope])
    with ExitStack() as stack:
        if scope != "events:write":
            stack.enter_context(nothing_appended(system.settings))
        for place, answer in enumerate(asked(system, narrow.key)):
            if place in allowed:
                assert answer.status in (200, 201, 404)
            else:
                assert "scope" in assert_problem(answer, 403, "forbidden")["detail"]
    assert_honest_works(system, tenant.key)


def test_an_organizations_key_opens_no_route_of_operators(system: System, tenant: Tenant) -> None:
    paths: dict[str, dict[str, Any]] = httpx.get(f"{system.url}/openapi.json", timeout=10).json()["paths"]
    routes = [(method.upper(), path) for path, item in paths.items() if path.startswith("/operator") for method in item]
    assert len(routes) >= 10
    with connect(system.settings.postgres, application="tests") as connection, nothing_appended(system.settings):
        count = "SELECT count(*) FROM control.audit_log"
        before = connection.execute(count).fetchone()
        for method, path in routes:
            target = path.replace("{organization}", tenant.organization).replace("{key}", tenant.key_id)
            body = b'{"name":"x","plan":"enterprise"}' if method in ("POST", "PATCH", "PUT") else b""
            for header in (("X-API-Key", tenant.key), ("Authorization", f"Bearer {tenant.key}")):
                assert_problem(talk(system.settings, call(method, target, body, header), source=HERE), 403, "forbidden")
            assert_problem(talk(system.settings, call(method, target, body), source=HERE), 401, "missing-operator-token")
        assert connection.execute(count).fetchone() == before
    assert_honest_works(system, tenant.key)


# Many

COUNTED: dict[str, tuple[str, dict[str, str]]] = {
    "looked up": ("triggers_key_lookups_total", {"source": "postgres"}),
    "not valid": ("triggers_keys_refused_total", {"reason": "invalid"}),
    "not looked at": ("triggers_keys_refused_total", {"reason": "too_many"}),
}


def test_made_up_keys_by_the_thousand_cost_no_memory_and_soon_no_look_up(system: System, tenant: Tenant) -> None:
    limit = system.settings.access.failed_keys_per_minute_max
    guesses = limit + 200
    assert_honest_works(system, tenant.key)

    def guess(address: str) -> list[int]:
        statuses = []
        with RawConnection(system.settings, source=address) as connection:
            for begin in range(0, guesses, 10):
                made_up = [keys.generate("live", os.urandom(keys.RANDOM_BYTES)) for _ in range(begin, min(begin + 10, guesses))]
                connection.send(b"".join(event_bytes(key) for key in made_up))
                for _ in made_up:
                    answer = connection.answer()
                    assert_problem(answer, answer.status, {401: "invalid-api-key", 429: "quota-exceeded"}[answer.status])
                    assert answer.status == 401 or 1 <= int(answer.header("Retry-After") or 0) <= 60
                    statuses.append(answer.status)
        return statuses

    server = redis.Redis.from_url(system.settings.redis.url.get_secret_value())
    before = {what: metric(system, name, **labels) for what, (name, labels) in COUNTED.items()}
    held, used = _key_entries(server), server.info("memory")["used_memory"]
    with nothing_appended(system.settings), ThreadPoolExecutor(len(CROWD)) as pool:
        for statuses in pool.map(guess, CROWD):
            assert statuses == [401] * limit + [429] * (guesses - limit)
    counted = {what: metric(system, name, **labels) - before[what] for what, (name, labels) in COUNTED.items()}
    assert counted["not valid"] == len(CROWD) * limit
    assert counted["not looked at"] == len(CROWD) * (guesses - limit)
    assert counted["looked up"] <= len(CROWD) * limit + 50  # a look-up that meets another epoch is made again
    assert _key_entries(server) <= held
    assert server.info("memory")["used_memory"] < used + 1_000_000
    server.close()
    assert_honest_works(system, tenant.key)
    assert talk(system.settings, event_bytes(tenant.key), source=CROWD[0]).status == 201  # a key that is known is no guess


def _key_entries(server: redis.Redis) -> int:
    return sum(1 for _ in server.scan_iter("triggers:{keys}:*", count=1_000))
