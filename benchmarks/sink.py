"""A webhook receiver for benchmarks, in a process of its own: answers 204 to whatever comes and writes down what came when.

`python -m benchmarks.sink FILE` prints its port, and on SIGTERM writes a line for each request to FILE: webhook-id, path, Unix seconds.
Signatures are not checked here: this is the load's other end, not a test.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Request(asyncio.Protocol):
    def __init__(self, received: list[tuple[bytes, bytes, float]]) -> None:
        self._received = received
        self._waiting = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head = self._waiting[:end]
            lower = head.lower()
            length = int(_header(lower, head, b"content-length") or 0)
            if len(self._waiting) < end + 4 + length:
                return
            self._waiting = self._waiting[end + 4 + length :]
            self._received.append((_header(lower, head, b"webhook-id"), head.split(b" ", 2)[1], time.time()))
            self._transport.write(_ANSWER)


def _header(lower: bytes, head: bytes, name: bytes) -> bytes:
    at = lower.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    begin = at + len(name) + 3
    end = head.find(b"\r", begin)
    return head[begin : end if end > 0 else None].strip()


async def _serve(received: list[tuple[bytes, bytes, float]]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Request(received), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    requests: list[tuple[bytes, bytes, float]] = []
    uvloop.run(_serve(requests))
    Path(sys.argv[1]).write_bytes(b"".join(b"%b %b %.6f\n" % one for one in requests))
