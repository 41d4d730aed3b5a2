"""Receivers as they are on bad days, on loopback: for tests and benchmarks. What a path does is its name.

`/never…` takes a request and does not answer, `/drip…` answers a byte a second, `/reset…` resets the connection, `/<status>…` answers that
status, everything else 204. Plain HTTP/1.1 on asyncio in a thread of its own: hundreds of paths at once cost little.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Final, NamedTuple

_STATUS: Final = re.compile(r"/([1-5]\d\d)\b")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)
_DRIP_S: Final = 1.0
_DRIP: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"." * 1000


class Arrival(NamedTuple):
    """One request. `at_s`: Unix seconds when its body had come."""

    path: str
    webhook_id: str
    at_s: float


class BadReceiver:
    """Keeps what arrives, in order. `better` holds paths that answer 204 from now on, whatever their name says."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.better: set[str] = set()
        self._retry_after = b"Retry-After: 1\r\n"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bad-receiver", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def of(self, path: str) -> list[Arrival]:
        return [one for one in tuple(self.arrivals) if one.path == path]

    def __enter__(self) -> BadReceiver:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512), self._loop
        ).result()
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sender went away, or the test is over
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        length, webhook_id = _LENGTH.search(head), _ID.search(head)
        if length is not None:
            await reader.readexactly(int(length[1]))
        path = head.split(b" ", 2)[1].decode()
        self.arrivals.append(Arrival(path, webhook_id[1].decode() if webhook_id else "", time.time()))
        status = _STATUS.match(path)
        if path in self.better:
            pass
        elif path.startswith("/never"):
            await reader.read()  # until the sender gives up
            return False
        elif path.startswith("/drip"):
            for number in range(len(_DRIP)):
                writer.write(_DRIP[number : number + 1])
                await writer.drain()
                await asyncio.sleep(_DRIP_S)
        elif path.startswith("/reset"):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif status is not None:
            more = self._retry_after if status[1] in ("429", "503") else b""
            writer.write(b"HTTP/1.1 %b Bad\r\nContent-Length: 0\r\n%b\r\n" % (status[1].encode(), more))
            return True
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True
