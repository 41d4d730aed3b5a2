"""Receivers as raw TCP servers, because no HTTP server can be talked into what these do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from delivery.meter import Meter
from runtime.settings import DeliverySettings, Settings

#: Total deadline of an attempt in these tests, and what a busy machine may add to it.
TIMEOUT_S = 1.5
SLACK_S = 1.5

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Receiver:
    port: int
    connections: int = 0
    #: Heads of the requests that came in.
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def receiver(behaviour: Behaviour, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """Reads one request after the other and lets `behaviour` answer; it goes on until the connection is gone."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        made.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    made.heads.append(head)
                    made.bodies.append(await reader.readexactly(content_length(head)))
                    await behaviour(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    made = Receiver(server.sockets[0].getsockname()[1])
    try:
        yield made
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def openssl_receiver(tls: ssl.SSLContext) -> Iterator[Receiver]:
    """One that tells a client why it refuses the handshake, as real servers do: event loops abort the connection before that is sent."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                made.connections += 1
                with accepted, suppress(OSError):
                    accepted.settimeout(TIMEOUT_S)
                    with tls.wrap_socket(accepted, server_side=True) as secured:
                        if head := secured.recv(65_536):
                            made.heads.append(head)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Receiver(listening.getsockname()[1])
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def says(*parts: bytes, close: bool = False) -> Behaviour:
    """Sends the parts and, if asked, closes."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        if close:
            writer.close()
            raise ConnectionAbortedError

    return behave


def repeats(part: bytes, *, after: bytes = b"", every_s: float = 0.0) -> Behaviour:
    """Sends `after` once and `part` until the connection is gone; at full speed with `every_s` 0."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        while not writer.transport.is_closing():
            writer.write(part if every_s else part * max(1, 16_384 // len(part)))
            await writer.drain()
            await asyncio.sleep(every_s)
        raise ConnectionAbortedError

    return behave


async def resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    opened = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionAbortedError


def settings(**delivery: object) -> Settings:
    """Development's rules, so that receivers may listen on this host, unless told otherwise."""
    values = {"allow_insecure_endpoints": True, "attempt_timeout_s": TIMEOUT_S, **delivery}
    return Settings(delivery=DeliverySettings.model_validate(values))


class Taken:
    """Bytes that connections brought to this process, as the meter saw them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        original = Meter.data_received

        def count(meter: Meter, data: bytes) -> None:
            self.bytes += len(data)
            original(meter, data)

        monkeypatch.setattr(Meter, "data_received", count)
