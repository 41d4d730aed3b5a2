"""Methods, callers that go, credentials and what a caller says about itself."""

from __future__ import annotations

import httpx
import pytest

from tests.flow.raw import (
    EVENT_BODY,
    LENGTH,
    Header,
    LogMark,
    RawConnection,
    assert_honest_works,
    assert_problem,
    event_bytes,
    metric,
    nothing_appended,
    raw_event,
    request_bytes,
    talk,
)
from triggers.provision import Tenant
from triggers.system import System, until

# Methods


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "OPTIONS", "DELETE", "QUERY"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/events", "POST"), ("/inbox", "GET, HEAD"), ("/inbox/ack", "POST"), ("/events/evt_x", "GET, HEAD"), ("/health", "GET, HEAD")],
)
def test_another_method_is_405_and_names_those_there_are(method: str, path: str, allowed: str, system: System, tenant: Tenant) -> None:
    answer = talk(system.settings, request_bytes(method, path, [("X-API-Key", tenant.key)]))
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.header("Allow") == allowed


def test_head_is_get_without_the_body(system: System, tenant: Tenant) -> None:
    key: list[Header] = [("X-API-Key", tenant.key)]
    for path in ("/", "/health", "/inbox", "/events/evt_x", "/nothing", "/metrics", "/openapi.json"):
        with RawConnection(system.settings) as connection:
            connection.send(request_bytes("GET", path, key))
            got = connection.answer()
            connection.send(request_bytes("HEAD", path, key))
            head = connection.answer(head=True)
            connection.send(request_bytes("GET", "/health"))  # nothing of a body is in between
            assert connection.answer().document == {"status": "alive"}
        assert (head.status, head.header("Content-Type")) == (got.status, got.header("Content-Type"))
        if path != "/metrics":
            assert abs(int(head.header("Content-Length") or -1) - len(got.body)) < 10
    assert talk(system.settings, request_bytes("HEAD", "/events", key), head=True).header("Allow") == "POST"
    refused = talk(system.settings, request_bytes("HEAD", "/", host=None), head=True)
    assert (refused.status, refused.closed, refused.rest) == (400, True, b"")


# Callers that go


def test_http_1_0_is_answered_and_closed(system: System, tenant: Tenant) -> None:
    for headers in ([], [("Connection", "keep-alive")]):
        answer = talk(system.settings, event_bytes(tenant.key, headers=headers, version="HTTP/1.0", host=None))
        assert (answer.status, answer.closed) == (201, True)


def test_a_caller_that_goes_before_its_answer_may_ask_again(system: System, tenant: Tenant) -> None:
    body = b'{"type":"a.b","payload":1,"idempotency_key":"%b"}'
    for n in range(20):
        with RawConnection(system.settings) as connection:
            connection.send(event_bytes(tenant.key, body=body % b"gone-%d" % n))
    for n in range(20):
        with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key, "Content-Type": "application/json"}, timeout=10) as client:
            until(lambda n=n, client=client: client.post("/events", content=body % b"gone-%d" % n).json().get("id"), 10, "an id")  # type: ignore[misc]
    mark = LogMark(system)
    assert_honest_works(system, tenant.key)
    assert not mark.lines("request.failed")


def test_a_caller_that_goes_in_the_middle_of_its_body_appends_nothing(system: System, tenant: Tenant) -> None:
    mark = LogMark(system)
    with nothing_appended(system.settings):
        for _ in range(20):
            with RawConnection(system.settings) as connection:
                connection.send(raw_event(tenant.key, LENGTH, body=EVENT_BODY[:10]))
        assert talk(system.settings, request_bytes("GET", "/health")).status == 200
    assert not mark.lines("request.failed")


# Credentials and other headers


@pytest.mark.parametrize(
    ("status", "slug", "target", "headers"),
    [
        (401, "missing-api-key", "/events", []),
        (401, None, "/events", [("X-API-Key", "")]),
        (401, None, "/events", [("X-API-Key", "   ")]),
        (400, "invalid-header", "/events", [("X-API-Key", "{key}"), ("X-API-Key", "bad")]),
        (400, "invalid-header", "/events", [("X-API-Key", "bad"), ("X-API-Key", "{key}")]),
        (401, "missing-api-key", "/events?api_key={key}&X-API-Key={key}", []),
        (401, "invalid-api-key", "/events", [("X-API-Key", "x")]),
        (401, "invalid-api-key", "/events", [("X-API-Key", "x" * 10_000)]),
        (401, "invalid-api-key", "/events", [("X-API-Key", "\xff\xfe")]),
        (401, "invalid-api-key", "/events", [("X-API-Key", "zap_live_" + "\xe9" * 55)]),
        (400, "malformed-request", "/events", [("X-API-Key", "{key}\0")]),
        (400, "malformed-request", "/events", [("X-API-Key", "{key}\rX: y")]),
        (401, "invalid-api-key", "/events", [("X-API-Key", "x\r\nX-Injected: y")]),
    ],
)
def test_a_key_of_no_shape_is_refused_without_looking_it_up(
    status: int, slug: str | None, target: str, headers: list[tuple[str, str]], system: System, tenant: Tenant
) -> None:
    mark, before = LogMark(system), metric(system, "triggers_key_lookups_total")
    filled: list[Header] = [(name, value.replace("{key}", tenant.key)) for name, value in headers]
    with nothing_appended(system.settings):
        answer = talk(system.settings, event_bytes(None, headers=filled, target=target.replace("{key}", tenant.key)))
        assert_problem(answer, status, slug)
    assert metric(system, "triggers_key_lookups_total") == before
    assert tenant.key not in mark.text()
    assert_honest_works(system, tenant.key)


def test_nothing_a_caller_says_about_itself_is_believed_or_repeated_unescaped(system: System, tenant: Tenant) -> None:
    mark = LogMark(system)
    forged: list[Header] = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=203.0.113.9")]
    assert talk(system.settings, event_bytes(tenant.key, headers=forged)).status == 201
    assert_problem(talk(system.settings, event_bytes(tenant.key, headers=[*forged, ("Host", "again")])), 400)
    until(lambda: bool(mark.lines("http.refused")), 5, "the refusal's log line")
    assert mark.lines("http.refused")[0]["client"] == "127.0.0.1"
    assert "203.0.113.9" not in mark.text()
    for request_id in ("x" * 10_000, "a b", "<script>", "\xff"):
        answer = talk(system.settings, event_bytes(tenant.key, headers=[("X-Request-Id", request_id)]))
        assert answer.status == 201
        assert str(answer.header("X-Request-Id")).startswith("req_")
    split = talk(system.settings, event_bytes(tenant.key, headers=[("X-Request-Id", "a\r\nSet-Cookie: evil=1")]))
    assert (split.status, split.header("Set-Cookie")) == (201, None)
    for trace in ("garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000, "\xff"):
        assert talk(system.settings, event_bytes(tenant.key, headers=[("traceparent", trace)])).status == 201


@pytest.mark.parametrize(
    "path", ["/events/%00", "/events/%ff%fe", "/events/..%2f..%2fetc%2fpasswd", "/events/" + "a" * 5_000, "/%00", "/inbox?cursor=%00"]
)
def test_strange_paths_are_no_failure(path: str, system: System, tenant: Tenant) -> None:
    answer = talk(system.settings, request_bytes("GET", path, [("X-API-Key", tenant.key)]))
    assert answer.status in (400, 404)
    assert_problem(answer, answer.status)


def test_every_answer_tells_browsers_to_be_careful(system: System, tenant: Tenant) -> None:
    sent = [
        event_bytes(tenant.key), event_bytes(None), request_bytes("GET", "/inbox", [("X-API-Key", tenant.key)]), request_bytes("GET", "/"),
        request_bytes("GET", "/nothing"), request_bytes("PUT", "/health"), request_bytes("GET", "/", host=None), b"nonsense\r\n\r\n",
    ]  # fmt: skip
    for each in sent:
        answer = talk(system.settings, each)
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("Cache-Control") == "no-store"
        assert "default-src 'none'" in str(answer.header("Content-Security-Policy"))
        assert answer.header("Date")
        assert answer.header("Server") is None
        assert answer.header("Strict-Transport-Security") is None
