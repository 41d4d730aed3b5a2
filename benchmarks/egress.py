"""CPU of one webhook with the egress guard, against the same aiohttp client without it: kept connections, and a new one for each.

Run: `.venv/bin/python -m benchmarks.egress [posts]`. The receiver is another process; sixty interleaved pairs; the median ratio counts.
Every closed connection holds a port for a minute: few are made.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import aiohttp
import uvloop

from delivery.attempt import Result, Sender
from delivery.egress import tls_context
from runtime.settings import DeliverySettings, Settings
from tests.contract.egress.certificates import authority, certificate

_NAME = "hooks.example.com"
_IN_FLIGHT = 16
_PAIRS = 60
_BODY = b'{"id":"evt_01","type":"a","timestamp":"2026-01-01T00:00:00Z","data":{"order":"o-1"}}'
_HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_01", "webhook-timestamp": "1", "webhook-signature": "v1," + "a" * 44}


class _Receiver(asyncio.Protocol):
    """Answers every request as soon as its bytes are there: they come in one piece."""

    def __init__(self, close: bool) -> None:
        self._close = close

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"POST /")):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok" % (b"Connection: close\r\n" if self._close else b""))
        if self._close:
            self._transport.close()


def receive(tell: Connection, file: str) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda close=close: _Receiver(close), "127.0.0.1", 0, ssl=context, backlog=1_024)  # type: ignore[misc]
            for close in (False, True)
        ]
        tell.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(main())


async def cost_us(post: Callable[[], Awaitable[Result]], count: int) -> float:
    """CPU of this process for one POST, in microseconds."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            if (await post()).status != 200:
                raise RuntimeError("a webhook was not delivered")

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return (time.process_time() - began) / count * 1e6


async def compare(port: int, ca_file: Path, count: int) -> list[tuple[float, float]]:
    """CPU (without, with) the guard."""
    settings = Settings(
        delivery=DeliverySettings.model_validate(
            {"egress_ports": (port,), "egress_allowed_networks": ("127.0.0.0/8",), "egress_ca_file": ca_file}
        )
    )
    url = f"https://{_NAME}:{port}/hook"

    class Loopback(aiohttp.resolver.ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[aiohttp.abc.ResolveResult]:
            return [aiohttp.abc.ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    plain = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=128, resolver=Loopback(), ssl=tls_context(ca_file)),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"User-Agent": "triggers-webhooks/1", "Accept-Encoding": "identity", "Accept": "*/*"},
    )

    async def read(answer: aiohttp.ClientResponse) -> bytes:
        kept, size = b"", 0
        while part := await answer.content.read(16_384):
            size += len(part)
            if len(kept) < 4_096:
                kept += part[: 4_096 - len(kept)]
            if size > 65_536:
                answer.close()
                break
        return kept

    async def bare() -> Result:
        """The attempt as it was before the guard."""
        async with asyncio.timeout(30):
            async with plain.post(url, data=_BODY, headers=_HEADERS, allow_redirects=False) as answer:
                kept = await read(answer)
                status = answer.status
        return Result(status, None if 200 <= status <= 299 else "status", kept)

    async with plain, Sender(settings, lambda _name: ["127.0.0.1"]) as sender:

        def guarded() -> Awaitable[Result]:
            return sender.post(url, _BODY, _HEADERS)

        await cost_us(bare, _IN_FLIGHT * 4)
        await cost_us(guarded, _IN_FLIGHT * 4)
        pairs = []
        for number in range(_PAIRS):  # in turns, as to who is first as well
            first, second = (bare, guarded) if number % 2 else (guarded, bare)
            costs = await cost_us(first, count), await cost_us(second, count)
            pairs.append(costs if number % 2 else costs[::-1])
        return pairs


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ca = authority()
        (ca_file := Path(folder) / "ca.pem").write_bytes(ca.pem())
        hear, tell = multiprocessing.Pipe()
        receiver = multiprocessing.get_context("spawn").Process(
            target=receive, args=(tell, str(certificate(_NAME, ca).write(Path(folder))))
        )
        receiver.start()
        try:
            ports = hear.recv()
            for what, port, each in (("kept connections", ports[0], count), ("a connection each", ports[1], max(1, count // 20))):
                pairs = uvloop.run(compare(port, ca_file, each))
                ratio = statistics.median(guarded / bare for bare, guarded in pairs)
                bare, guarded = (statistics.median(column) for column in zip(*pairs, strict=True))
                print(f"{what}: {bare:.0f} µs bare, {guarded:.0f} µs guarded, ratio {ratio:.3f} (median of {_PAIRS} pairs of {each} posts)")
        finally:
            receiver.terminate()
            receiver.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
