"""One connection over a transport in memory: what is written, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.ingest.wire import GET, POST, SETTINGS, House, statuses


@pytest.fixture
async def house() -> House:
    return House()


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (414, b"GET /" + b"x" * 100 + b" HTTP/1.1\r\n"),
        (431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 7),
        (431, b"GET / HTTP/1.1\r\nA: " + b"x" * 1_000 + b"\r\n"),
        (431, b"GET / HTTP/1.1\r\nA: " + b"x" * 1_000),
        (431, b"GET / HTTP/1.1\r\n" + b"x" * 1_000),
        (431, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"x" * 400 + b"\r\nB: " + b"x" * 600 + b"\r\n\r\n"),
        (431, b"\r\n" * 501),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"nonsense"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_a_limit_holds_however_the_bytes_are_cut(status: int, sent: bytes, step: int, house: House) -> None:
    protocol, transport = house.connect()
    for begin in range(0, len(sent), step):
        protocol.data_received(sent[begin : begin + step])
    await house.settle()
    assert statuses(transport.written) == [status]
    assert b"application/problem+json" in transport.written
    assert b"connection: close" in transport.written
    assert house.app.seen == []


async def test_trailers_are_no_headers_and_have_the_limits_of_heads(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Api-Key: evil\r\n\r\n")
    await house.settle()
    assert statuses(transport.written) == [200]
    assert b"x-api-key" not in dict(house.app.seen[0]["headers"])
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ")
    protocol.data_received(b"y" * 1_001)
    assert statuses(transport.written) == [431]


async def test_an_answer_before_the_request_is_whole_is_the_last(house: House) -> None:
    house.app.reads = False
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 3\r\n\r\n")
    await house.settle()
    assert b"connection: close" in transport.written
    assert (transport.ended, transport.closed) == (True, False)
    protocol.data_received(b"abc" + GET)
    await house.settle()
    assert len(house.app.seen) == 1


async def test_what_is_thrown_away_has_a_limit(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"nonsense")
    for _ in range(64):
        protocol.data_received(b"x" * 65_536)
    assert not transport.aborted
    protocol.data_received(b"x" * 65_536)
    assert transport.aborted


async def test_refusals_wait_for_the_answers_before_them(house: House) -> None:
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(GET + GET + b"nonsense")
    await house.settle()
    assert transport.written == b""
    house.app.may_answer.set()
    await house.settle()
    assert statuses(transport.written) == [200, 200, 400]


async def test_of_a_pipeline_only_so_much_waits(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(GET * 50)
    await house.settle()
    assert statuses(transport.written) == [200, 200, 200, 503]
    assert len(house.app.seen) == 3


async def test_a_whole_answer_or_none(house: House) -> None:
    """An error in a body whose answer has begun cannot be told any more: the connection is reset."""
    protocol, transport = house.connect()

    async def begins(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(60)

    protocol.app = begins
    protocol.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await house.settle()
    protocol.data_received(b"zz\r\n")
    assert transport.aborted
    assert statuses(transport.written) == [200]
    for task in house.state.tasks:
        task.cancel()


async def test_too_many_requests_are_refused_but_health_is_answered() -> None:
    house = House(SETTINGS.model_copy(update={"connections_max": 100}))
    house.app.may_answer.clear()
    for _ in range(SETTINGS.requests_max):
        house.connect()[0].data_received(GET)
    for sent, outcome in ((POST + b"Content-Length: 5\r\n\r\n", True), (GET, False)):
        protocol, transport = house.connect()
        protocol.data_received(sent)
        assert statuses(transport.written) == [503]
        assert b"retry-after: 1" in transport.written
        assert (b'"outcome":"not_appended"' in transport.written) is outcome
    protocol, transport = house.connect()
    protocol.data_received(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    house.app.may_answer.set()
    await house.settle()
    assert statuses(transport.written) == [200]


async def test_too_many_connections_are_told_so(house: House) -> None:
    held = [house.connect() for _ in range(SETTINGS.connections_max)]
    protocol, transport = house.connect()
    assert (statuses(transport.written), transport.closed) == ([503], True)
    protocol.data_received(GET)
    protocol.connection_lost(None)
    held[0][0].connection_lost(None)
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    assert statuses(transport.written) == [200]


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_an_ignored_upgrade_ends_neither_the_body_nor_the_connection(step: int) -> None:
    house = House(SETTINGS.model_copy(update={"pipelined_max": 10}))
    upgrade = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
    sent = POST + upgrade + b"Content-Length: 3\r\n\r\nabc" + GET + POST + b"Transfer-Encoding: chunked\r\n" + upgrade
    sent += b"\r\n3\r\nabc\r\n0\r\n\r\n" + GET[:-2] + upgrade + b"\r\n"
    protocol, transport = house.connect()
    for begin in range(0, len(sent), step):
        protocol.data_received(sent[begin : begin + step])
    await house.settle()
    assert statuses(transport.written) == [200] * 4
    assert house.app.bodies == [b"abc", b"", b"abc", b""]
    assert [scope["path"] for scope in house.app.seen] == ["/events", "/x"] * 2


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"/a%20b?c=%20", b"x", "/a b"),
        (b"http://x/p?q=1", b"x", "/p"),
        (b"HTTP://X", b"x", "/"),
        (b"https://x:1/p", b"x:1", "/p"),
        (b"http://y/p", b"x", None),
        (b"http://a@x/p", b"a@x", None),
        (b"ftp://x/p", b"x", None),
        (b"*", b"x", None),
        (b"/p", b"[::1]:80", "/p"),
        (b"/p", b"", "/p"),
        (b"/p", b"x y", None),
        (b"/p", b"x/y", None),
    ],
)
async def test_targets_and_hosts(target: bytes, host: bytes, path: str | None, house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    await house.settle()
    assert statuses(transport.written) == [400 if path is None else 200]
    assert [scope["path"] for scope in house.app.seen] == ([] if path is None else [path])


async def test_blanks_around_a_value_are_none_of_it_but_where_a_request_ends_is_read_as_sent(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET /x HTTP/1.1\r\nHost: x\r\nA: \t b\tc \t \r\n\r\n")
    await house.settle()
    assert (b"a", b"b\tc") in house.app.seen[0]["headers"]
    protocol, transport = house.connect()
    protocol.data_received(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n")
    await house.settle()
    assert statuses(transport.written) == [400]


async def test_a_draining_server_says_that_each_answer_is_the_last(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    assert not transport.ended
    house.shared.draining = True
    protocol.data_received(GET)
    await house.settle()
    assert transport.closed
    assert transport.written.count(b"connection: close") == 1


async def test_shutdown_closes_what_asks_nothing_and_waits_for_what_does() -> None:
    house = House(SETTINGS.model_copy(update={"connections_max": 3}))
    (_idle, unused), (half, halfway), (busy, transport) = (house.connect() for _ in range(3))
    house.app.may_answer.clear()
    half.data_received(b"GET /")
    busy.data_received(POST + b"Content-Length: 3\r\n\r\na")
    await house.settle()
    house.shared.draining = True
    for protocol in list(house.state.connections):
        protocol.shutdown()
    assert unused.closed
    assert halfway.closed
    assert not transport.ended
    busy.data_received(b"bc")
    house.app.may_answer.set()
    await house.settle()
    assert statuses(transport.written) == [200]
    assert transport.closed


@pytest.mark.parametrize(("sent", "slug"), [(POST + b"Content-Length: 0\r\n\r\n", b"outcome-unknown"), (GET, b"unavailable")])
async def test_what_the_shutdown_cuts_off_is_told_so(sent: bytes, slug: bytes, house: House) -> None:
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(sent)
    await house.settle()
    for task in house.state.tasks:
        task.cancel()
    await house.settle()
    assert statuses(transport.written) == [503]
    assert b"urn:triggers:problem:" + slug in transport.written
    assert transport.closed


async def test_an_error_nobody_caught_is_a_problem_document(house: House) -> None:
    house.app.error = RuntimeError("secret detail")
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    assert statuses(transport.written) == [500]
    assert b"problem:internal" in transport.written
    assert b"secret" not in transport.written
