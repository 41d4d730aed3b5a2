"""What is not HTTP, or could be read in two ways: refused whole, and nothing of it is appended."""

from __future__ import annotations

import socket

import pytest

from tests.flow.raw import (
    ANSWER_TIMEOUT_S,
    CHUNKED,
    EVENT_BODY,
    LENGTH,
    Header,
    LogMark,
    RawAnswer,
    RawConnection,
    assert_honest_works,
    assert_problem,
    chunked,
    event_bytes,
    metric,
    nothing_appended,
    raw_event,
    request_bytes,
    talk,
)
from triggers.provision import Tenant
from triggers.system import System, until

#: What is not the HTTP of RFC 9112, as header lines of an otherwise honest event, and its body.
FRAMING: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "content length and transfer encoding": ((LENGTH, CHUNKED), chunked(EVENT_BODY)),
    "transfer encoding and content length": ((CHUNKED, LENGTH), chunked(EVENT_BODY)),
    "two lengths that differ": ((LENGTH, b"Content-Length: 5"), EVENT_BODY),
    "two lengths that agree": ((LENGTH, LENGTH), EVENT_BODY),
    "length -5": ((b"Content-Length: -5",), EVENT_BODY),
    "length +26": ((b"Content-Length: +26",), EVENT_BODY),
    "length 26, 26": ((b"Content-Length: 26, 26",), EVENT_BODY),
    "length 0x1a": ((b"Content-Length: 0x1a",), EVENT_BODY),
    "length of nothing": ((b"Content-Length: ",), EVENT_BODY),
    "length above 2^64": ((b"Content-Length: 99999999999999999999999",), EVENT_BODY),
    "chunk size above 2^64": ((CHUNKED,), b"FFFFFFFFFFFFFFFFFF\r\n" + EVENT_BODY),
    "chunk size -1": ((CHUNKED,), b"-1\r\n" + EVENT_BODY),
    "chunk size 0x1a": ((CHUNKED,), b"0x1a\r\n" + EVENT_BODY + b"\r\n0\r\n\r\n"),
    "chunk size with a space": ((CHUNKED,), b"1a \r\n" + EVENT_BODY + b"\r\n0\r\n\r\n"),
    "chunk lines of bare LF": ((CHUNKED,), b"1a\n" + EVENT_BODY + b"\n0\n\n"),
    "chunk longer than it says": ((CHUNKED,), b"5\r\n" + EVENT_BODY + b"\r\n0\r\n\r\n"),
    "transfer encoding xchunked": ((b"Transfer-Encoding: xchunked",), chunked(EVENT_BODY)),
    "transfer encoding gzip, chunked": ((b"Transfer-Encoding: gzip, chunked",), chunked(EVENT_BODY)),
    "transfer encoding twice": ((CHUNKED, CHUNKED), chunked(EVENT_BODY)),
    "transfer encoding behind a vertical tab": ((b"Transfer-Encoding: \x0bchunked",), chunked(EVENT_BODY)),
    "transfer encoding on a folded line": ((b"Transfer-Encoding:\r\n chunked",), chunked(EVENT_BODY)),
    "folded header": ((LENGTH, b"X-A: b\r\n c"), EVENT_BODY),
    "header folded by a tab": ((LENGTH, b"X-A: b\r\n\tc"), EVENT_BODY),
    "space before the colon": ((b"Content-Length : 26",), EVENT_BODY),
    "bare CR in a value": ((LENGTH, b"X-A: b\rc"), EVENT_BODY),
    "bare LF behind a header": ((LENGTH, b"X-A: b\nX-B: c"), EVENT_BODY),
    "NUL in a value": ((LENGTH, b"X-A: b\0c"), EVENT_BODY),
    "NUL in a name": ((LENGTH, b"X\0A: b"), EVENT_BODY),
    "control character in a value": ((LENGTH, b"X-A: b\x01"), EVENT_BODY),
    "header without a name": ((LENGTH, b": b"), EVENT_BODY),
    "header without a colon": ((LENGTH, b"X-A"), EVENT_BODY),
    "two hosts": ((LENGTH, b"Host: evil.example"), EVENT_BODY),
}
#: What is no request of ours from its first line on.
STRANGERS: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 by name": request_bytes("GET", "/", version="HTTP/0.9"),
    "HTTP/1.2": request_bytes("GET", "/", version="HTTP/1.2"),
    "HTTP/2.0": request_bytes("GET", "/", version="HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a request for a proxy": request_bytes("GET", "http://other.example/"),
    "a tunnel": request_bytes("CONNECT", "other.example:443"),
    "the server as a whole": request_bytes("OPTIONS", "*"),
    "a relative target": request_bytes("GET", "health"),
    "a target with a fragment": request_bytes("GET", "/health#x"),
    "a target with a space": request_bytes("GET", "/he alth"),
    "a target of Latin-1": request_bytes("GET", "/\xff"),
    "lines of bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "no host": request_bytes("GET", "/", host=None),
    "a host that is none": request_bytes("GET", "/", host="a b<script>"),
    "a host with a path": request_bytes("GET", "/", host="x/y"),
    "lower-case post": request_bytes("post"),
    "a method of 10 KB": request_bytes("A" * 10_240),
    "SIP": b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm\r\n\r\n",
    "random bytes": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("name", FRAMING)
def test_ambiguous_http_is_refused_appends_nothing_and_ends_the_connection(name: str, system: System, tenant: Tenant) -> None:
    lines, body = FRAMING[name]
    with nothing_appended(system.settings):
        answer = talk(system.settings, raw_event(tenant.key, *lines, body=body))
        assert_problem(answer, 400, "malformed-request", closes=True)
    assert_honest_works(system, tenant.key)


@pytest.mark.parametrize("name", ["content length and transfer encoding", "chunk size above 2^64", "folded header", "two hosts"])
def test_it_is_refused_alike_when_it_comes_byte_by_byte(name: str, system: System, tenant: Tenant) -> None:
    lines, body = FRAMING[name]
    with nothing_appended(system.settings), RawConnection(system.settings) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert connection.drip(raw_event(tenant.key, *lines, body=body), 0.001, ANSWER_TIMEOUT_S)
        assert_problem(connection.answer(), 400, "malformed-request", closes=True)


@pytest.mark.parametrize("name", STRANGERS)
def test_what_speaks_another_protocol_is_told_so_once_and_let_go(name: str, system: System, tenant: Tenant) -> None:
    mark, before = LogMark(system), metric(system, "triggers_http_refused_total", problem="malformed-request")
    answer = talk(system.settings, STRANGERS[name])
    request_id = assert_problem(answer, 400, "malformed-request", closes=True)["request_id"]
    until(lambda: bool(mark.lines("http.refused", request_id=request_id)), 5, "the refusal's log line")
    assert len(mark.lines("http.refused")) == 1
    assert metric(system, "triggers_http_refused_total", problem="malformed-request") == before + 1
    assert_honest_works(system, tenant.key)


def test_a_refusal_repeats_nothing_of_the_request(system: System) -> None:
    mark = LogMark(system)
    canary = b"canary-7f3a"
    sent = request_bytes("GET", b"/" + canary, [("X-Request-Id", canary + b"\x01"), ("X-Api-Key", canary), ("Cookie", canary)], host=canary)
    answer = talk(system.settings, sent)
    request_id = assert_problem(answer, 400, "malformed-request", closes=True)["request_id"]
    until(lambda: bool(mark.lines("http.refused", request_id=request_id)), 5, "the refusal's log line")
    assert canary.decode() not in mark.text()
    assert canary not in answer.body
    assert not [value for _, value in answer.headers if canary.decode() in value]


def test_an_absolute_target_that_names_its_host_is_the_path(system: System) -> None:
    answer = talk(system.settings, request_bytes("GET", "http://API.test/health?x=1"))
    assert (answer.status, answer.document) == (200, {"status": "alive"})


def test_the_host_is_never_repeated(system: System, tenant: Tenant) -> None:
    posted = talk(system.settings, event_bytes(tenant.key, host="evil.example"))
    assert posted.status == 201
    assert str(posted.header("Location")).startswith("/events/")
    for target in ("/", "/inbox", "/inbox?status=all&limit=1", "/health/", "/openapi.json", "/docs", "/nothing"):
        answer = talk(system.settings, request_bytes("GET", target, [("X-API-Key", tenant.key)], host="evil.example"))
        assert b"evil.example" not in answer.body
        assert "evil.example" not in str(answer.headers)


def test_a_trailer_is_no_header(system: System, tenant: Tenant) -> None:
    body = chunked(EVENT_BODY, trailer=b"X-API-Key: " + tenant.key.encode() + b"\r\n")
    sent = request_bytes("POST", "/events", [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]) + body
    with nothing_appended(system.settings):
        assert_problem(talk(system.settings, sent), 401, "missing-api-key")
    good = raw_event(tenant.key, CHUNKED, body=chunked(EVENT_BODY, trailer=b"X-Checksum: 1\r\n"))
    assert talk(system.settings, good).status == 201


def test_an_upgrade_is_ignored_and_the_connection_goes_on(system: System, tenant: Tenant) -> None:
    upgrade: list[Header] = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    with RawConnection(system.settings) as connection:
        for _ in range(2):
            connection.send(event_bytes(tenant.key, headers=upgrade))
            assert connection.answer().status == 201
            connection.send(request_bytes("GET", "/health", upgrade))
            assert connection.answer().status == 200
        connection.send(request_bytes("GET", "/health", upgrade) + event_bytes(tenant.key))
        assert [connection.answer().status for _ in range(2)] == [200, 201]


# Pipelines


def test_answers_come_in_the_order_of_their_requests_and_a_refusal_last(system: System, tenant: Tenant) -> None:
    with RawConnection(system.settings) as connection:
        wait = request_bytes("GET", "/inbox?wait=0.5&cursor=now", [("X-API-Key", tenant.key)])
        connection.send(wait + event_bytes(tenant.key) + request_bytes("GET", "/health") + b"nonsense\r\n\r\n" + event_bytes(tenant.key))
        answers = [connection.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 201, 200, 400]
    assert_problem(answers[-1], 400, "malformed-request", closes=True)


def test_a_refusal_in_the_body_of_a_waiting_request_waits_its_turn(system: System, tenant: Tenant) -> None:
    with nothing_appended(system.settings), RawConnection(system.settings) as connection:
        connection.send(request_bytes("GET", "/health") + raw_event(tenant.key, CHUNKED, body=b"zz\r\n"))
        assert connection.answer().status == 200
        assert_problem(connection.answer(), 400, "malformed-request", closes=True)


def test_a_pipeline_has_a_limit(system: System) -> None:
    limit = system.settings.api.pipelined_max
    with RawConnection(system.settings) as connection:
        connection.send(request_bytes("GET", "/health") * 3_000)
        answers: list[RawAnswer] = []
        while not answers or not answers[-1].closed:
            answers.append(connection.answer())
    assert [answer.status for answer in answers] == [200] * (limit + 1) + [503]
    assert_problem(answers[-1], 503, "overloaded", closes=True)
