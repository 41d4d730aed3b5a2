"""A server's connections over transports in memory, for the tests of `ingest.protocol`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from ingest.connection import Server
from ingest.middleware import security_headers
from ingest.protocol import BoundedProtocol
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
        self.writes = 0
        self.unsent = 0
        self.closed = self.ended = self.aborted = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.written += bytes(data)
        self.writes += 1

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
        #: Of an answer, beside its length.
        self.headers: list[tuple[bytes, bytes]] = []

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
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content)), *self.headers]})
        await send({"type": "http.response.body", "body": content})


class House:
    """A server's connections."""

    def __init__(self, settings: ApiSettings = SETTINGS, app: Any = None) -> None:
        self.app = App()
        self.state = ServerState()
        self.shared = Server(settings, Refusals(SYSTEM, security_headers(0)), connections_max=settings.connections_max)
        factory: Any = partial(BoundedProtocol, self.shared)
        self.config = uvicorn.Config(
            app or self.app, http=factory, interface="asgi3", loop="none", lifespan="off", log_config=None, proxy_headers=False
        )
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


def statuses(written: bytes) -> list[int]:
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]


def now_s(later_s: float = 0.0) -> float:
    return asyncio.get_running_loop().time() + later_s
