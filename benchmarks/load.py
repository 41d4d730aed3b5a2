"""A load generator for one HTTP server on loopback, in a process of its own: events over keep-alive connections, bytes made beforehand.

Closed model: each connection posts its next event when the last one is answered: the most a server takes. Open model (`rate_per_s`): events
are due at fixed times whatever the server does, and a latency counts from when its event was due, so that a stall is seen by every event it
delays (no coordinated omission).

Run by `benchmarks.rig`: `python -m benchmarks.load` reads the json of `Load` and prints that of `Outcome`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop


@dataclass(frozen=True)
class Load:
    """`keys` are used in turn, one API key an organization. `batch`: events a request, 0 for `POST /events`.

    `ids_path` gets a line for each 201: the event's id, and when the answer came as Unix seconds.
    """

    port: int
    keys: list[str]
    seconds: float
    connections: int = 32
    rate_per_s: float | None = None
    event_bytes: int = 500
    batch: int = 0
    run: str = "0"
    ids_path: str | None = None


@dataclass
class Outcome:
    """`events` were answered well; `statuses` counts every answer. Latencies in ms, per request."""

    events: int = 0
    elapsed_s: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        return self.events / self.elapsed_s

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in ("200", "201"))


class _Generator:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.number = 0
        self.latencies_s: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.bodies: list[tuple[float, bytes]] = []
        self._filling = b"x" * max(0, load.event_bytes - 150)

    def request(self) -> bytes:
        """The next request, unique."""
        load = self.load
        self.number += 1
        key = load.keys[self.number % len(load.keys)]
        if load.batch:
            first = self.number * load.batch
            body = b"[" + b",".join(self._event(first + n) for n in range(load.batch)) + b"]"
        else:
            body = self._event(self.number)
        path = b"/events/batch" if load.batch else b"/events"
        return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            path,
            key.encode(),
            len(body),
            body,
        )

    def _event(self, number: int) -> bytes:
        return b'{"type":"order.paid","idempotency_key":"%b-%d","payload":{"order":%d,"currency":"EUR","note":"%b"}}' % (
            self.load.run.encode(), number, number, self._filling,
        )  # fmt: skip

    def answered(self, status: int, body: bytes, latency_s: float) -> None:
        self.statuses[status] += 1
        self.latencies_s.append(latency_s)
        if self.load.ids_path is not None:
            self.bodies.append((time.time(), body))


class _Connection(asyncio.Protocol):
    """One request at a time. `on_idle` is called whenever another one may be sent."""

    def __init__(self, generator: _Generator, on_idle: Callable[[_Connection], None]) -> None:
        self._generator = generator
        self._on_idle = on_idle
        self._received = b""
        self._due_s = 0.0
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self._on_idle(self)

    def post(self, due_s: float) -> None:
        assert self.transport is not None
        self._due_s = due_s
        self.transport.write(self._generator.request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        at = head.find(b"content-length:") + 15
        length = int(head[at : end if (end := head.find(b"\r", at)) > 0 else None])
        if len(self._received) < head_end + 4 + length:
            return
        body, self._received = self._received[head_end + 4 :], b""
        self._generator.answered(int(head[9:12]), body, time.perf_counter() - self._due_s)
        self._on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.statuses[0] += bool(exc)


async def _closed(generator: _Generator) -> float:
    loop, load = asyncio.get_running_loop(), generator.load
    began_s = time.perf_counter()
    idle = 0
    ended = asyncio.Event()

    def on_idle(connection: _Connection) -> None:
        nonlocal idle
        now_s = time.perf_counter()
        if now_s - began_s < load.seconds:
            connection.post(now_s)
            return
        idle += 1
        if idle == load.connections:
            ended.set()

    for _ in range(load.connections):
        await loop.create_connection(lambda: _Connection(generator, on_idle), "127.0.0.1", load.port)
    await asyncio.wait_for(ended.wait(), load.seconds + 30)
    return time.perf_counter() - began_s


async def _open(generator: _Generator, rate_per_s: float) -> float:
    loop, load = asyncio.get_running_loop(), generator.load
    waiting: deque[float] = deque()
    idle: list[_Connection] = []

    def on_idle(connection: _Connection) -> None:
        if waiting:
            connection.post(waiting.popleft())
        else:
            idle.append(connection)

    for _ in range(load.connections):
        await loop.create_connection(lambda: _Connection(generator, on_idle), "127.0.0.1", load.port)
    began_s = time.perf_counter()
    count = int(load.seconds * rate_per_s)
    for number in range(count):
        due_s = began_s + number / rate_per_s
        while (early_s := due_s - time.perf_counter()) > 0:  # noqa: ASYNC110 - a time is waited for
            await asyncio.sleep(early_s)
        if idle:
            idle.pop().post(due_s)
        else:
            waiting.append(due_s)
    deadline_s = time.perf_counter() + 30
    while len(generator.latencies_s) < count and time.perf_counter() < deadline_s:  # noqa: ASYNC110 - the last answers
        await asyncio.sleep(0.01)
    return time.perf_counter() - began_s


def _ids(bodies: list[tuple[float, bytes]], batch: bool) -> list[tuple[str, float]]:
    """(event id, when its 201 came as Unix seconds)."""
    found: list[tuple[str, float]] = []
    for at_s, body in bodies:
        document = json.loads(body)
        if batch:
            found += [(one["event"]["id"], at_s) for one in document["results"] if one["status"] == 201]
        elif "id" in document:
            found.append((document["id"], at_s))
    return found


def main(load: Load) -> Outcome:
    generator = _Generator(load)
    gc.disable()
    rate_per_s = load.rate_per_s
    elapsed_s = uvloop.run(_closed(generator) if rate_per_s is None else _open(generator, rate_per_s))
    taken = sorted(generator.latencies_s) or [0.0]
    good = generator.statuses[201] + generator.statuses[200]
    ids = _ids(generator.bodies, bool(load.batch))
    if load.ids_path is not None:
        Path(load.ids_path).write_text("\n".join(f"{event_id} {at_s:.6f}" for event_id, at_s in ids))

    def quantile(share: float) -> float:
        return 1000 * taken[min(len(taken) - 1, int(share * len(taken)))]

    return Outcome(
        len(ids) if load.batch and load.ids_path else good * max(1, load.batch), elapsed_s, quantile(0.5), quantile(0.95), quantile(0.99),
        {str(status): count for status, count in generator.statuses.items() if count},
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asdict(main(Load(**json.load(sys.stdin))))))
