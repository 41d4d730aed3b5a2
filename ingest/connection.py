"""What a connection of `ingest.protocol` consists of: its phases, what it shares with the others, its requests, its transport."""

from __future__ import annotations

import asyncio
import sys
from enum import Enum, auto
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ingest.refusals import Refusals
from runtime.settings import ApiSettings


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
    """One request and its answer."""

    wants_keep_alive: bool
    refusals: Refusals

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
