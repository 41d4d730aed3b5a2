"""One connection over a transport in memory: what is written, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ingest.middleware import security_headers
from ingest.protocol import BoundedProtocol, Server
from ingest.refusals import Refusals
from runtime.clock import SYSTEM
from runtime.settings import ApiSettings

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /events HTTP/1.1\r\nHost: x\r\n"
SETTINGS = ApiSettings(
    head_timeout_s=10, body_timeout_s=20, keep_alive_s=30, send_timeout_s=40, linger_s=5, head_bytes_max=1_000, headers_max=5,
    target_bytes_max=100, pipelined_max=2, requests_max=4, connections_max=2,
)  # fmt: skip


class Transport(asyncio.Transport):
    """What a caller sees of the server's side."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.closed = self.ended = self.aborted = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = self.ended = True

    def abort(self) -> None:
        self.aborted = self.ended = True

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.7", 9) if name == "peername" else default


class App:
    """Answers with what it was asked, when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.reads = True
        self.seen: list[dict[str, Any]] = []
        self.bodies: list[bytes | None] = []
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.seen.append(scope)
        body: bytes | None = b""
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                body = None
                break
            body = (body or b"") + message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        if body is None:
            return
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        content = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
        await send({"type": "http.response.body", "body": content})


class House:
    """A server's connections."""

    def __init__(self, settings: ApiSettings = SETTINGS) -> None:
        self.app = App()
        self.state = ServerState()
        self.shared = Server(settings, Refusals(SYSTEM, security_headers(0)), connections_max=settings.connections_max)
        factory: Any = partial(BoundedProtocol, self.shared)
        self.config = uvicorn.Config(self.app, http=factory, loop="none", lifespan="off", log_config=None, proxy_headers=False)
        self.config.load()

    def connect(self) -> tuple[BoundedProtocol, Transport]:
        made: Any = self.config.http_protocol_class
        protocol = made(config=self.config, server_state=self.state, app_state={}, _loop=asyncio.get_running_loop())
        transport = Transport()
        protocol.connection_made(transport)
        return protocol, transport

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def house() -> House:
    return House()


def statuses(written: bytes) -> list[int]:
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]


def now_s(later_s: float = 0.0) -> float:
    return asyncio.get_running_loop().time() + later_s


async def test_a_head_that_does_not_end_is_408_at_its_deadline_and_not_before(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET /x HTTP/1.1\r\nHo")
    protocol.sweep(now_s(9))
    assert transport.written == b""
    protocol.sweep(now_s(10.1))
    assert statuses(transport.written) == [408]
    assert (transport.ended, transport.closed) == (True, False)  # what still comes is thrown away for a while
    protocol.data_received(b"st: x\r\n\r\n")
    await house.settle()
    assert house.app.seen == []
    protocol.sweep(now_s(5.1))
    assert transport.aborted


async def test_more_of_a_head_does_not_move_its_deadline(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET /x HT")
    began_s = now_s()
    await asyncio.sleep(0.02)
    protocol.data_received(b"TP/1.1\r\nHost: x\r\n")
    protocol.sweep(began_s + 10.01)
    assert statuses(transport.written) == [408]


async def test_a_body_that_does_not_end_is_408_and_the_application_is_told_that_the_caller_is_gone(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 9\r\n\r\nabc")
    await house.settle()
    protocol.sweep(now_s(19))
    assert transport.written == b""
    protocol.sweep(now_s(20.1))
    await house.settle()
    assert statuses(transport.written) == [408]
    assert house.app.bodies == [None]


async def test_time_in_which_we_do_not_read_does_not_count(house: House) -> None:
    house.app.reads = False
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 999999\r\n\r\n" + b"x" * 70_000)
    await house.settle()
    assert transport.paused
    protocol.sweep(now_s(25))
    protocol.sweep(now_s(40))
    protocol.flow.resume_reading()
    protocol.sweep(now_s(59))
    assert transport.written == b""
    protocol.sweep(now_s(61))
    assert statuses(transport.written) == [408]


async def test_an_idle_connection_is_closed_without_a_word(house: House) -> None:
    fresh, unused = house.connect()
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    answered = transport.written
    for each in (fresh, protocol):
        each.sweep(now_s(29))
    assert not unused.ended
    for each in (fresh, protocol):
        each.sweep(now_s(30.1))
    assert (unused.closed, unused.written) == (True, b"")
    assert (transport.closed, transport.written) == (True, answered)


async def test_a_request_under_way_has_all_the_time_its_application_takes(house: House) -> None:
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    protocol.sweep(now_s(1_000))
    assert not transport.ended
    house.app.may_answer.set()
    await house.settle()
    assert statuses(transport.written) == [200]


async def test_an_answer_nobody_takes_is_given_up_and_one_taken_slowly_is_not(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    base_s = now_s()
    for later_s, unsent in ((1, 900), (35, 800), (70, 700)):
        transport.unsent = unsent
        protocol.sweep(base_s + later_s)
        assert not transport.aborted
    protocol.sweep(base_s + 111)
    assert transport.aborted


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
