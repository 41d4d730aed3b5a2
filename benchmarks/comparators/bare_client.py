"""A client that posts signed webhook bodies to URLs and does nothing else: no plan, no journal, no retries. aiohttp, as delivery uses it.

`python -m benchmarks.comparators.bare_client COUNT CONCURRENCY URL…` prints seconds and CPU seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import aiohttp
import msgspec
import uvloop
from msgspec import Raw

from delivery import sign
from schemas import ids
from schemas.events import Ingested

_PAYLOAD = Raw(b'{"note":"%b"}' % (b"x" * 200))


def _event(number: int) -> Ingested:
    return Ingested(
        v=1, id=ids.event_id(number, os.urandom(10)), organization=ids.organization_id(1, bytes(10)), mode="live", type="order.paid",
        received_at_ms=1_795_000_000_000, fingerprint="f" * 64, payload=_PAYLOAD,
    )  # fmt: skip


async def _post(count: int, concurrency: int, urls: list[str]) -> None:
    numbers = iter(range(count))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as client:

        async def work() -> None:
            for number in numbers:
                event: Any = msgspec.json.decode(msgspec.json.encode(_event(number)), type=Ingested)
                content = sign.body(event)
                headers = {"Content-Type": "application/json", **sign.headers(event.id, int(time.time()), content, (b"s" * 24,))}
                async with client.post(urls[number % len(urls)], data=content, headers=headers, allow_redirects=False) as answer:
                    await answer.read()

        await asyncio.gather(*(work() for _ in range(concurrency)))


if __name__ == "__main__":
    began_s = time.monotonic()
    uvloop.run(_post(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
    print(time.monotonic() - began_s, time.process_time())
