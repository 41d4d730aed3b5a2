"""What a connection of `ingest.protocol` consists of: its phases, what it shares with the others, its requests, its transport."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ingest.refusals import Refusals
from runtime.settings import ApiSettings

#: Of a request's scope: a function that gives the body if it is there already (`Cycle.whole_body`).
WHOLE_BODY: Final = "triggers.whole_body"
#: Headers that say where an answer ends, lower case as all names here are.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
#: What no header may hold (RFC 9110 section 5.5), beside CR and LF, which are counted.
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\r\n")) + b"\x7f"


class Phase(Enum):
    """Where the receiving side of a connection is. `BUSY`: a request is whole and its answer is not."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    BUSY = auto()
    CLOSING = auto()


class Server:
    """What all connections of a server share. `fast_path` takes whole requests before the application does; False for those it leaves."""

    def __init__(
        self, settings: ApiSettings, refusals: Refusals, *, connections_max: int, fast_path: Callable[[Cycle], bool] = lambda _: False
    ) -> None:
        self.settings = settings
        self.refusals = refusals
        self.connections_max = connections_max
        self.fast_path = fast_path
        #: Every answer from now on is its connection's last.
        self.draining = False
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._lines = b""

    def lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Header lines. uvicorn's own headers (the date) are another list once a second and the same for every answer until then."""
        if headers is not self._headers:
            self._headers, self._lines = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._lines


class Cycle(RequestResponseCycle):
    """One request and its answer.

    An answer of known length leaves in one write, its head with the first of its body, and its headers are looked at together. uvicorn's
    own `send` looks at each with two regular expressions and writes twice; it takes over for everything else, and for what is not valid.
    """

    # What uvicorn sets for each request.
    disconnected = False
    keep_alive = False  # an answer that comes before the request is whole is the last
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    scope: Any
    #: Bytes as long as they came in one part, which most do.
    body: Any = b""
    _event: asyncio.Event | None = None
    _taken = False
    _head = b""

    def __init__(self, connection: Connection, server: Server, scope: Any, *, wants_keep_alive: bool) -> None:
        self.connection = connection
        self.server = server
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.access_log = connection.access_log
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.waiting_for_100_continue = connection.expect_100_continue
        self.wants_keep_alive = wants_keep_alive

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Made once somebody waits for what comes: most bodies are whole before."""
        if self._event is None:
            self._event = asyncio.Event()
            if self.body or self.disconnected or self.response_complete or not (self.more_body or self._taken):
                self._event.set()
        return self._event

    def wake(self) -> None:
        """Something came, or nothing more will."""
        if self._event is not None:
            self._event.set()

    def add(self, part: bytes) -> int:
        """A part of the body; how many bytes of it wait now."""
        if not self.body:
            self.body = part
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += part
        self.wake()
        return len(self.body)

    def answer(self, head: bytes, body: bytes) -> bool:
        """Write a whole answer at once. False, and nothing is written, while the caller does not take what was written before.

        `head`: status line and header lines, each with its CRLF, the length of `body` among them. None of it is looked at.
        """
        if self.flow.write_paused:
            return False
        if self.disconnected:
            return True
        self.response_started = self.response_complete = True
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((head, self.server.lines(self.default_headers), end, body)))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started and not self.disconnected:
            if self._begin(message["status"], message.get("headers", ())):
                return
        elif kind == "http.response.body" and self._head and not self.disconnected:
            head, self._head = self._head, b""
            body = message.get("body", b"")
            if len(body) == self.expected_content_length and not message.get("more_body") and not self.flow.write_paused:
                self.expected_content_length = 0
                self.response_complete = True
                self.transport.write(head if self.scope["method"] == "HEAD" else head + body)
                self.wake()
                if not self.keep_alive:
                    self.transport.close()
                self.on_response()
                return
            self.transport.write(head)
        await super().send(message)

    def whole_body(self) -> bytes | None:
        """The body, if all of it is here and nobody has asked for it: what `receive` would give, without waiting. None otherwise."""
        if self.more_body or self.disconnected or self.response_complete:
            return None
        body, self.body, self._taken = bytes(self.body), b"", True
        if self._event is not None:
            self._event.clear()
        if self.flow.read_paused:
            self.flow.resume_reading()
        return body

    def _begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Keep the head until the body comes. False for one that uvicorn has to look at."""
        length = -1
        lines = [STATUS_LINE[status][:-2]]
        for name, value in (*self.default_headers, *headers):
            if name in _FRAMING:
                if name != b"content-length" or length >= 0 or not value.isdigit():
                    return False
                length = int(value)
            lines.append(name + b": " + value)
        if length < 0:
            return False
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        ends = len(lines) - 1
        if head.count(b"\r") != ends or head.count(b"\n") != ends or len(head.translate(None, _CONTROLS)) != len(head):
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = False
        self.expected_content_length = length
        self._head = head + b"\r\n\r\n"
        return True

    async def send_500_response(self) -> None:
        """The application ended without an answer: cut off by the shutdown, or by an error nobody caught."""
        stopped = isinstance(sys.exc_info()[1], asyncio.CancelledError)
        for message in self.server.refusals.unanswered(self.scope, stopped=stopped):
            await self.send(cast(Any, message))


class Connection(HttpToolsProtocol):
    """What a request and its transport know of their connection."""

    def finish(self) -> None:
        """End it after what was written."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        raise NotImplementedError

    def scope_of(self, version: str, method: bytes, path: str, raw_path: bytes, query: bytes) -> dict[str, Any]:
        """The ASGI scope of the request whose headers came last."""
        return {
            "type": "http", "asgi": {"version": self.asgi_version, "spec_version": "2.3"}, "http_version": version, "server": self.server,
            "client": self.client, "scheme": self.scheme, "method": method.decode("ascii"), "root_path": self.root_path, "path": path,
            "raw_path": raw_path, "query_string": query, "headers": self.headers, "state": self.app_state.copy(),
        }  # fmt: skip

    def start_task(self, cycle: Cycle) -> None:
        """Give the request to the application, in a task of its own."""
        raise NotImplementedError


class Closing:
    """The transport as uvicorn's parts see it: closing it is the protocol's decision."""

    __slots__ = ("close", "get_extra_info", "is_closing", "pause_reading", "resume_reading", "write")

    def __init__(self, transport: asyncio.Transport, protocol: Connection) -> None:
        self.write = transport.write
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.close = protocol.finish
        self.is_closing = protocol.is_closing


class Unsent:
    """What was written and not yet taken by the caller."""

    def __init__(self) -> None:
        self._bytes = 0
        self._since_s = 0.0

    def __bool__(self) -> bool:
        return self._bytes > 0

    def stuck(self, size_bytes: int, now_s: float, timeout_s: float) -> bool:
        """`size_bytes` are unsent now. Whether none of them was taken for `timeout_s`."""
        if size_bytes and (not self._bytes or size_bytes < self._bytes):
            self._since_s = now_s
        self._bytes = size_bytes
        return bool(size_bytes) and now_s - self._since_s > timeout_s
