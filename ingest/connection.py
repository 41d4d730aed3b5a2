"""What a connection of `ingest.protocol` consists of: its phases, what it shares with the others, its requests, its transport."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

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
    """What all connections of a server share."""

    def __init__(self, settings: ApiSettings, refusals: Refusals, *, connections_max: int) -> None:
        self.settings = settings
        self.refusals = refusals
        self.connections_max = connections_max
        #: Every answer from now on is its connection's last.
        self.draining = False


class Cycle(RequestResponseCycle):
    """One request and its answer.

    An answer of known length leaves in one write, its head with the first of its body, and its headers are looked at together. uvicorn's
    own `send` looks at each with two regular expressions and writes twice; it takes over for everything else, and for what is not valid.
    """

    wants_keep_alive: bool
    refusals: Refusals
    _head = b""

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
                self.message_event.set()
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
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
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
        for message in self.refusals.unanswered(self.scope, stopped=stopped):
            await self.send(cast(Any, message))


class Connection(Protocol):
    """What decides when a connection ends."""

    def finish(self) -> None: ...
    def is_closing(self) -> bool: ...


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
