"""What is too large, too slow or too much of the running system."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.flow.hostile.apis import Api, answers
from tests.flow.raw import (
    ANSWER_TIMEOUT_S,
    BODY_MAX,
    CHUNKED,
    EVENT_BODY,
    PAYLOAD_MAX,
    Header,
    RawAnswer,
    RawConnection,
    assert_honest_works,
    assert_problem,
    chunked,
    close_quietly,
    event_bytes,
    nothing_appended,
    raw_event,
    request_bytes,
    talk,
)
from triggers.provision import Tenant, make_tenant
from triggers.system import System, until

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
        until(lambda: port in _callers(system, tight.name), 5, "the hoarder being let in", 0.05)
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
    until(lambda: answers(f"{tight.url}/health"), 5, "room again", 0.1)
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
    until(lambda: answers(f"{tight.url}/health/ready"), 15, "the API being ready again", 0.2)
    assert_honest_works(system, tenant.key, tight.url)
    assert (system.supervisor.pid(tight.name), system.supervisor.restart_count(tight.name)) == (pid, 0)


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
