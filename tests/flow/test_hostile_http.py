"""What the running system makes of callers that are broken, slow, many or malicious, below the level of content."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from runtime.settings import Settings
from tests.flow.raw import (
    ANSWER_TIMEOUT_S,
    EVENT_BODY,
    Header,
    LogMark,
    RawAnswer,
    RawConnection,
    assert_honest_works,
    assert_problem,
    close_quietly,
    event_bytes,
    metric,
    nothing_appended,
    request_bytes,
    rss_bytes,
    talk,
)
from triggers.devstack.ports import free_ports
from triggers.provision import Tenant, make_tenant
from triggers.system import System, argv, settings_of, until

PAYLOAD_MAX = 262_144
BODY_MAX = PAYLOAD_MAX + 16_384
RSS_GROWTH_BYTES_MAX = 50 * 1024 * 1024
TIGHT = {
    "TRIGGERS_API__HEAD_TIMEOUT_S": "1.5",
    "TRIGGERS_API__BODY_TIMEOUT_S": "1.5",
    "TRIGGERS_API__KEEP_ALIVE_S": "2",
    "TRIGGERS_API__SEND_TIMEOUT_S": "1.5",
    "TRIGGERS_API__REQUESTS_MAX": "6",
    "TRIGGERS_API__CONNECTIONS_MAX": "30",
}


@dataclass(frozen=True)
class Api:
    """One more API process of the system, with limits that a test reaches soon."""

    name: str
    settings: Settings

    @property
    def url(self) -> str:
        return f"http://{self.settings.api.host}:{self.settings.api.port}"


@pytest.fixture(scope="module")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "hostile")


@pytest.fixture(scope="module")
def tight(system: System) -> Iterator[Api]:
    extra = {**TIGHT, "TRIGGERS_API__PORT": str(free_ports(1)[0])}
    api = Api("tight", settings_of({**system.environment, **extra}))
    system.start_process(api.name, ("serve",), extra)
    try:
        until(lambda: _answers(f"{api.url}/health/ready"), 30, "the tight API being ready", 0.2)
        yield api
    finally:
        system.supervisor.stop(api.name)


@pytest.fixture(scope="module")
def rss_before(system: System, tenant: Tenant) -> int:
    """Resident bytes of the API once it has served some of everything."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: assert_honest_works(system, tenant.key), range(64)))
    return rss_bytes(system)


@pytest.fixture(autouse=True)
def measured(rss_before: int) -> None:
    """The memory is looked at before the first test of this module."""


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


def raw_event(key: str, *lines: bytes, body: bytes = EVENT_BODY) -> bytes:
    """`POST /events` with exactly these header lines beside the honest ones."""
    own = [b"POST /events HTTP/1.1", b"Host: api.test", b"Content-Type: application/json", b"X-API-Key: " + key.encode()]
    return b"\r\n".join([*own, *lines, b"", b""]) + body


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(EVENT_BODY)

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


# Sizes


def test_a_body_without_end_is_cut_off_at_the_limit_and_not_kept(system: System, tenant: Tenant) -> None:
    part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for key, status in ((tenant.key, 413), ("zap_live_" + "0" * 55, 401)):
        with nothing_appended(system.settings), RawConnection(system.settings) as connection:
            connection.send(raw_event(key, CHUNKED, body=b""))
            connection.send(*[part] * 1_024)
            assert_problem(connection.answer(), status, closes=True)
    assert_honest_works(system, tenant.key)


def test_a_length_above_the_limit_is_refused_before_the_body_comes(system: System, tenant: Tenant) -> None:
    with nothing_appended(system.settings):
        answer = talk(system.settings, raw_event(tenant.key, b"Content-Length: 300000", body=b""))
        assert_problem(answer, 413, "body-too-large", closes=True)
    assert answer.elapsed_s < 2


@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
def test_a_payload_is_measured_in_bytes(letter: str, system: System, tenant: Tenant) -> None:
    size = len(letter.encode())
    count, fill = divmod(PAYLOAD_MAX - 2, size)

    def body(extra: int) -> bytes:
        return b'{"type":"a.b","payload":"' + (letter * count + "x" * (fill + extra)).encode() + b'"}'

    assert talk(system.settings, event_bytes(tenant.key, body=body(0))).status == 201
    with nothing_appended(system.settings):
        assert_problem(talk(system.settings, event_bytes(tenant.key, body=body(1))), 413, "payload-too-large")


def test_a_body_is_measured_whole(system: System, tenant: Tenant) -> None:
    fits = EVENT_BODY + b" " * (BODY_MAX - len(EVENT_BODY))
    assert talk(system.settings, event_bytes(tenant.key, body=fits)).status == 201
    for sent in (event_bytes(tenant.key, body=fits + b" "), raw_event(tenant.key, CHUNKED, body=chunked(fits, b" "))):
        with nothing_appended(system.settings):
            assert_problem(talk(system.settings, sent), 413, "body-too-large", closes=True)


@pytest.mark.parametrize(
    ("status", "slug", "target", "headers"),
    [
        (431, "headers-too-large", "/health", [("X-Big", "x" * 70_000)]),
        (431, "headers-too-large", "/health", [("x" * 70_000, "x")]),
        (431, "headers-too-large", "/health", [(f"X-{n}", "x") for n in range(2_000)]),
        (431, "headers-too-large", "/health", [(f"X-{n}", "") for n in range(100)]),
        (431, "headers-too-large", "/health", [(f"X-{n}", "x" * 1_000) for n in range(17)]),
        (414, "uri-too-long", "/" + "x" * 16_384, []),
        (414, "uri-too-long", "/health?" + "x" * 8_192, []),
        (414, "uri-too-long", "/" + "x" * 300_000, []),
    ],
)
def test_a_head_has_limits(status: int, slug: str, target: str, headers: list[Header], system: System, tenant: Tenant) -> None:
    answer = talk(system.settings, request_bytes("GET", target, headers))
    assert_problem(answer, status, slug, closes=True)
    assert_honest_works(system, tenant.key)


def test_a_head_at_the_limits_is_served(system: System) -> None:
    assert talk(system.settings, request_bytes("GET", "/health?" + "x" * 8_000)).status == 200
    assert talk(system.settings, request_bytes("GET", "/health", [("X-Big", "x" * 16_000)])).status == 200
    assert talk(system.settings, request_bytes("GET", "/health", [(f"X-{n}", "x") for n in range(99)])).status == 200


@pytest.mark.parametrize(
    "start", [b"GET /health HTTP/1.1\r\nHost: x\r\nX-Big: ", b"GET /", b"\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nX: y\r\n" * 1]
)
def test_a_head_without_end_is_cut_off_at_the_limit(start: bytes, system: System) -> None:
    filling = start * 500 if start == b"\r\n" else b"a" * 1_000
    with RawConnection(system.settings) as connection:
        connection.send(start)
        sent = 0
        while not connection.readable(0.001) and sent < 100_000:
            connection.send(filling)
            sent += len(filling)
        answer = connection.answer()
    assert answer.status in (431, 414)
    assert_problem(answer, answer.status, closes=True)


@pytest.mark.parametrize("endless", [b"1;" + b"a" * 1_000, b"0\r\nX-Trailer: " + b"a" * 1_000])
def test_a_chunk_extension_or_trailer_without_end_is_cut_off(endless: bytes, system: System, tenant: Tenant) -> None:
    with nothing_appended(system.settings), RawConnection(system.settings) as connection:
        connection.send(raw_event(tenant.key, CHUNKED, body=endless))
        for _ in range(200):
            if connection.readable(0.001) or not connection.send(b"a" * 1_000):
                break
        assert_problem(connection.answer(), 431, "headers-too-large", closes=True)


# Time


def test_what_drips_is_let_go_within_ten_seconds(system: System, tenant: Tenant) -> None:
    slow_head = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 60
    ack = request_bytes("POST", "/inbox/ack", [("X-API-Key", tenant.key), ("Content-Type", "application/json"), ("Content-Length", "1000")])
    slow_event = raw_event(tenant.key, b"Content-Length: 1000", body=b"")

    def dripped(start: bytes) -> tuple[RawAnswer, float]:
        began_s = time.monotonic()
        with RawConnection(system.settings, timeout_s=12) as connection:
            connection.send(start)
            connection.drip(b"a" * 60, 1.0, 12)
            return connection.answer(timeout_s=5), time.monotonic() - began_s

    with nothing_appended(system.settings), ThreadPoolExecutor(3) as pool:
        for answer, took_s in pool.map(dripped, (slow_head, ack, slow_event)):
            assert_problem(answer, 408, "request-timeout", closes=True)
            assert took_s <= ANSWER_TIMEOUT_S + 0.5
    assert_honest_works(system, tenant.key)


def test_a_connection_that_asks_nothing_is_closed(tight: Api, tenant: Tenant, system: System) -> None:
    with RawConnection(tight.settings) as silent, RawConnection(tight.settings) as used:
        used.send(request_bytes("GET", "/health"))
        assert used.answer().status == 200
        began_s = time.monotonic()
        assert silent.ended(6)
        assert used.ended(6)
        assert 1 < time.monotonic() - began_s < 5
    assert_honest_works(system, tenant.key, tight.url)


def test_deadlines_start_again_with_each_request_of_a_connection(tight: Api) -> None:
    with RawConnection(tight.settings) as connection:
        for _ in range(3):
            connection.send(b"GET /health HTTP/1.1\r\n")
            assert not connection.readable(1.0)
            connection.send(b"Host: x\r\n\r\n")
            assert connection.answer().status == 200


def test_a_caller_that_takes_nothing_of_its_answer_is_let_go(tight: Api, system: System) -> None:
    big = make_tenant(system.settings, "big")
    body = b'{"type":"a.b","payload":"' + b"x" * 250_000 + b'"}'
    with httpx.Client(base_url=tight.url, headers={"X-API-Key": big.key, "Content-Type": "application/json"}, timeout=10) as client:
        for _ in range(40):
            assert client.post("/events", content=body).status_code == 201
        until(lambda: client.get("/inbox?limit=1000").num_bytes_downloaded > 7_000_000, 30, "the events in the inbox", 0.3)
    page = request_bytes("GET", "/inbox?limit=1000", [("X-API-Key", big.key)])
    with _small_window(tight) as hoarder:
        hoarder.sendall(page)
        port = hoarder.getsockname()[1]
        assert port in _callers(system, tight.name)
        until(lambda: port not in _callers(system, tight.name), 8, "the hoarder being let go", 0.1)


# Expect


def test_no_continue_is_sent_before_the_key_is_checked(system: System, tenant: Tenant) -> None:
    expecting: list[Header] = [("Expect", "100-continue"), ("Content-Length", str(len(EVENT_BODY)))]
    for key in (None, "", "zap_live_" + "0" * 55):
        with nothing_appended(system.settings):
            answer = talk(system.settings, event_bytes(key, headers=expecting, body=b""))
            assert_problem(answer, 401, closes=True)
            assert answer.interim == []
    too_large = talk(system.settings, event_bytes(tenant.key, headers=[expecting[0], ("Content-Length", "300000")], body=b""))
    assert_problem(too_large, 413, closes=True)
    assert too_large.interim == []
    with RawConnection(system.settings) as connection:
        connection.send(event_bytes(tenant.key, headers=expecting, body=b""))
        assert connection.readable(5)
        assert connection.socket.recv(100, socket.MSG_PEEK) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(EVENT_BODY)
        answer = connection.answer()
        assert (answer.status, answer.interim) == (201, [100])


# Many


def test_a_thousand_idle_connections_do_not_slow_honest_callers(system: System, tenant: Tenant) -> None:
    def honest_s() -> float:
        with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=10) as client:
            took = []
            for _ in range(200):
                began_s = time.perf_counter()
                assert client.post("/events", content=EVENT_BODY, headers={"Content-Type": "application/json"}).status_code == 201
                took.append(time.perf_counter() - began_s)
        return sorted(took)[-2]

    alone_s = honest_s()
    idle = [RawConnection(system.settings) for _ in range(1_000)]
    try:
        for half in idle[:500]:
            half.send(b"POST /events HTTP/1.1\r\nHost: x\r\n")
        crowded_s = honest_s()
    finally:
        close_quietly(idle)
    print(f"p99 alone {alone_s * 1e3:.1f} ms, among 1,000 idle connections {crowded_s * 1e3:.1f} ms")
    assert crowded_s < max(0.5, 5 * alone_s)


def test_more_requests_than_allowed_are_refused_at_once_and_say_nothing_was_appended(tight: Api, tenant: Tenant, system: System) -> None:
    fresh = make_tenant(system.settings, "waits")
    polls = [RawConnection(tight.settings, timeout_s=15) for _ in range(tight.settings.api.requests_max)]
    try:
        for poll in polls:
            poll.send(request_bytes("GET", "/inbox?wait=4", [("X-API-Key", fresh.key)]))
        until(lambda: _refused(tight, tenant), 3, "an overload")
        with nothing_appended(system.settings):
            answer = talk(tight.settings, event_bytes(tenant.key))
        document = assert_problem(answer, 503, "overloaded", closes=True)
        assert document["outcome"] == "not_appended"
        assert int(answer.header("Retry-After") or "") >= 1
        assert answer.elapsed_s < 1
        assert "outcome" not in talk(tight.settings, request_bytes("GET", "/inbox", [("X-API-Key", tenant.key)])).document
        assert talk(tight.settings, request_bytes("GET", "/health")).status == 200
        assert [poll.answer().status for poll in polls] == [200] * len(polls)
    finally:
        close_quietly(polls)
    assert_honest_works(system, tenant.key, tight.url)


def test_more_connections_than_allowed_are_told_so_and_closed(tight: Api, tenant: Tenant, system: System) -> None:
    until(lambda: not _callers(system, tight.name), 10, "earlier connections being closed", 0.2)
    held = [RawConnection(tight.settings) for _ in range(tight.settings.api.connections_max)]
    try:
        for _ in range(20):
            with RawConnection(tight.settings) as connection:
                assert_problem(connection.answer(), 503, "overloaded", closes=True)
        held[0].send(request_bytes("GET", "/health"))
        assert held[0].answer().status == 200
    finally:
        close_quietly(held)
    until(lambda: _answers(f"{tight.url}/health"), 5, "room again", 0.1)
    assert_honest_works(system, tenant.key, tight.url)


def test_without_files_to_open_it_lives_serves_who_is_there_and_recovers(tight: Api, tenant: Tenant, system: System) -> None:
    pid = system.supervisor.pid(tight.name)
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    with httpx.Client(base_url=tight.url, headers={"X-API-Key": tenant.key, "Content-Type": "application/json"}, timeout=10) as honest:
        assert honest.post("/events", content=EVENT_BODY).status_code == 201
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 4, before[1]))
        try:
            crowd = [RawConnection(tight.settings) for _ in range(20)]
            assert honest.post("/events", content=EVENT_BODY).status_code == 201
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() - 3, before[1]))  # and less than it has already
            crowd += [RawConnection(tight.settings) for _ in range(5)]
            assert honest.post("/events", content=EVENT_BODY).status_code == 201
            close_quietly(crowd)
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, before)
    until(lambda: _answers(f"{tight.url}/health/ready"), 15, "the API being ready again", 0.2)
    assert_honest_works(system, tenant.key, tight.url)
    assert (system.supervisor.pid(tight.name), system.supervisor.restart_count(tight.name)) == (pid, 0)


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


# The end


def test_draining_says_so_answers_what_is_under_way_and_ends_with_zero(system: System, tenant: Tenant, tmp_path: Path) -> None:
    fresh = make_tenant(system.settings, "drains")
    with _own_api(system, tmp_path, {"TRIGGERS_API__DRAIN_S": "2"}) as (process, settings), ExitStack() as held:
        polling, kept, late = (held.enter_context(RawConnection(settings, timeout_s=15)) for _ in range(3))
        polling.send(request_bytes("GET", "/inbox?wait=4", [("X-API-Key", fresh.key)]))
        kept.send(request_bytes("GET", "/health"))
        assert kept.answer().header("Connection") is None
        late.send(raw_event(tenant.key, LENGTH, body=EVENT_BODY[:10]))
        process.terminate()
        ready = f"http://127.0.0.1:{settings.api.port}/health/ready"
        until(lambda: httpx.get(ready).json()["status"] == "draining", 2, "readiness saying so")
        assert httpx.get(ready).status_code == 503
        kept.send(event_bytes(tenant.key))
        answer = kept.answer()
        assert (answer.status, answer.closed) == (201, True)
        assert talk(settings, event_bytes(tenant.key)).status == 201
        until(lambda: not _listens(settings), 5, "the port being closed")
        assert process.poll() is None
        late.send(EVENT_BODY[10:])
        answer = late.answer()
        assert (answer.status, answer.closed) == (201, True)
        answer = polling.answer()
        assert (answer.status, answer.closed, answer.document["events"]) == (200, True, [])
        assert process.wait(10) == 0


def test_what_does_not_end_in_time_is_answered_503_and_the_process_ends_with_zero(system: System, tenant: Tenant, tmp_path: Path) -> None:
    fresh = make_tenant(system.settings, "does not end")
    with _own_api(system, tmp_path, {"TRIGGERS_API__SHUTDOWN_TIMEOUT_S": "1"}) as (process, settings), ExitStack() as held:
        polling, idle, half = (held.enter_context(RawConnection(settings, timeout_s=15)) for _ in range(3))
        polling.send(request_bytes("GET", "/inbox?wait=25", [("X-API-Key", fresh.key)]))
        half.send(b"POST /events HTTP/1.1\r\n")
        until(lambda: talk(settings, request_bytes("GET", "/health")).status == 200, 5, "the requests having come")
        began_s = time.monotonic()
        process.terminate()
        assert idle.ended(5)
        assert half.ended(5)
        answer = polling.answer()
        assert_problem(answer, 503, "unavailable", closes=True)
        assert process.wait(10) == 0
        assert time.monotonic() - began_s < 6


def test_the_whole_catalogue_costs_little_memory(system: System, rss_before: int) -> None:
    grown = rss_bytes(system) - rss_before
    print(f"resident memory of the API grew by {grown / 1e6:.1f} MB")
    assert grown < RSS_GROWTH_BYTES_MAX
    assert system.supervisor.restart_count("api") == 0


class _own_api:
    """An API process of the test's own, which it may end."""

    def __init__(self, system: System, folder: Path, extra: dict[str, str]) -> None:
        self._environment = {**system.environment, **extra, "TRIGGERS_API__PORT": str(free_ports(1)[0])}
        self._log = folder / "api.log"

    def __enter__(self) -> tuple[subprocess.Popen[bytes], Settings]:
        settings = settings_of(self._environment)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv("serve"), env=self._environment, stdout=log, stderr=log)
        until(lambda: _answers(f"http://127.0.0.1:{settings.api.port}/health/ready"), 30, "the API being ready", 0.2)
        return self._process, settings

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def _listens(settings: Settings) -> bool:
    try:
        socket.create_connection((settings.api.host, settings.api.port), timeout=2).close()
    except OSError:
        return False
    return True


def _refused(api: Api, tenant: Tenant) -> bool:
    return talk(api.settings, request_bytes("GET", "/inbox", [("X-API-Key", tenant.key)])).status == 503


def _small_window(api: Api) -> socket.socket:
    """A connection whose receiver takes little into its buffer."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.settimeout(10)
    made.connect((api.settings.api.host, api.settings.api.port))
    return made


def _callers(system: System, name: str) -> set[int]:
    """Ports of the callers connected to a process of the system."""
    connections = psutil.Process(system.supervisor.pid(name)).net_connections("tcp")
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return {c.raddr.port for c in connections if c.raddr and c.laddr.port in listening}
