"""Requests as no client library sends them: bytes over a socket, what came back, and what the running system made of it.

For the tests of bad input. `talk` sends bytes and gives the answer; `assert_problem` checks it is a whole RFC 9457 document;
`nothing_appended` guards a block; `assert_honest_works` shows that the next caller is served; `log_lines` is what the API logged meanwhile.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import httpx
import psutil
from confluent_kafka import Consumer, TopicPartition

from runtime.settings import Settings
from schemas.problems import CONTENT_TYPE, TYPE_PREFIX
from schemas.topics import EVENTS_INGESTED
from triggers.system import System

#: No answer and no close within this: the connection hangs (RELIABILITY I23).
ANSWER_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 65_536
EVENT_BODY: Final = b'{"type":"a.b","payload":1}'
PAYLOAD_MAX: Final = 262_144
BODY_MAX: Final = PAYLOAD_MAX + 16_384
#: Header lines that say how long a body is.
CHUNKED: Final = b"Transfer-Encoding: chunked"
LENGTH: Final = b"Content-Length: %d" % len(EVENT_BODY)

Header = tuple[str | bytes, str | bytes]


@dataclass
class RawAnswer:
    """One HTTP answer as it came. `status` 0: the connection ended without one. `interim` are 1xx statuses before it."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    #: Whether the server ended the connection after it, as far as that was waited for.
    closed: bool = False
    #: Bytes behind this answer: the next one of a pipeline, or what should not be there.
    rest: bytes = b""
    elapsed_s: float = 0.0

    def header(self, name: str) -> str | None:
        """The one header of this name. Raises `AssertionError` if there are two."""
        found = [value for each, value in self.headers if each.lower() == name.lower()]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def slug(self) -> str:
        """The last part of the problem's type."""
        return str(self.document["type"]).removeprefix(TYPE_PREFIX)


class RawConnection:
    """A TCP connection to the API. Never waits longer than the time-outs it is given."""

    def __init__(self, settings: Settings, *, timeout_s: float = ANSWER_TIMEOUT_S, source: str = "") -> None:
        """`source`: the address it comes from, one of this machine's."""
        self.socket = socket.create_connection((settings.api.host, settings.api.port), timeout=timeout_s, source_address=(source, 0))
        self._timeout_s = timeout_s
        self._buffer = b""

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> bool:
        """Whether the server took it all: False once it has closed its side."""
        try:
            for part in parts:
                self.socket.sendall(part)
        except OSError:
            return False
        return True

    def drip(self, data: bytes, pause_s: float, limit_s: float) -> bool:
        """One byte at a time until the server answers, closes or `limit_s` is over. Whether it answered or closed."""
        deadline_s = time.monotonic() + limit_s
        for index in range(len(data)):
            if time.monotonic() >= deadline_s or not self.send(data[index : index + 1]):
                break
            if self.readable(pause_s):
                return True
        return self.readable(max(0.0, deadline_s - time.monotonic()))

    def readable(self, timeout_s: float) -> bool:
        """Whether bytes or the end of the connection came within `timeout_s`. Takes nothing away."""
        self.socket.settimeout(max(0.001, timeout_s))
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def answer(self, *, head: bool = False, timeout_s: float | None = None) -> RawAnswer:
        """The next answer, whole. Raises `TimeoutError` if it does not come, `AssertionError` if only half of it does.

        `head`: the request was a HEAD, so no body follows whatever the length says.
        """
        began_s = time.monotonic()
        deadline_s = began_s + (self._timeout_s if timeout_s is None else timeout_s)
        answer = RawAnswer()
        while True:
            if not self._until(lambda: b"\r\n\r\n" in self._buffer, deadline_s):
                assert not self._buffer, f"half an answer: {self._buffer!r}"
                answer.closed = True
                answer.elapsed_s = time.monotonic() - began_s
                return answer
            raw, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            first, *lines = raw.decode("latin-1").split("\r\n")
            assert first.startswith("HTTP/1.1 "), first
            status = int(first.split(" ")[1])
            if status >= 200:
                break
            answer.interim.append(status)
        answer.status = status
        answer.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if not head and status not in (204, 304):
            answer.body = self._body(answer, deadline_s)
        if (answer.header("Connection") or "").lower() == "close":
            answer.closed = self.ended(max(0.5, deadline_s - time.monotonic()))
        answer.rest = self._buffer
        answer.elapsed_s = time.monotonic() - began_s
        return answer

    def ended(self, timeout_s: float) -> bool:
        """Whether the server closes its side within `timeout_s`; what comes before that is kept."""
        return not self._until(lambda: False, time.monotonic() + timeout_s, quiet=True)

    def _body(self, answer: RawAnswer, deadline_s: float) -> bytes:
        length = answer.header("Content-Length")
        if length is not None:
            size = int(length)
            assert self._until(lambda: len(self._buffer) >= size, deadline_s), "half a body"
            body, self._buffer = self._buffer[:size], self._buffer[size:]
            return body
        assert answer.header("Transfer-Encoding") == "chunked"
        parts: list[bytes] = []
        while True:
            assert self._until(lambda: b"\r\n" in self._buffer, deadline_s), "half a chunk"
            line, self._buffer = self._buffer.split(b"\r\n", 1)
            size = int(line, 16)
            assert self._until(lambda wanted=size + 2: len(self._buffer) >= wanted, deadline_s), "half a chunk"  # type: ignore[misc]
            parts.append(self._buffer[:size])
            self._buffer = self._buffer[size + 2 :]
            if size == 0:
                return b"".join(parts)

    def _until(self, enough: Callable[[], bool], deadline_s: float, *, quiet: bool = False) -> bool:
        """Read until `enough` (True) or the server's end (False). Raises `TimeoutError`, or gives True if `quiet`."""
        while not enough():
            left_s = deadline_s - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError("neither an answer nor a close")
                self.socket.settimeout(left_s)
                part = self.socket.recv(_READ_BYTES)
            except TimeoutError:
                if quiet:
                    return True
                raise
            except OSError:
                return False
            if not part:
                return False
            self._buffer += part
        return True


def request_bytes(
    method: str | bytes = b"POST",
    target: str | bytes = b"/events",
    headers: Iterable[Header] = (),
    body: bytes = b"",
    *,
    version: str | bytes = b"HTTP/1.1",
    host: str | bytes | None = b"api.test",
    length: bool = True,
) -> bytes:
    """A request, unchecked. With a `body` its length is said unless `length` is False; `host` None leaves Host out."""
    lines = [b" ".join((_bytes(method), _bytes(target), _bytes(version)))]
    if host is not None:
        lines.append(b"Host: " + _bytes(host))
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    if body and length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def event_bytes(key: str | None, *, headers: Sequence[Header] = (), body: bytes = EVENT_BODY, **request: Any) -> bytes:
    """`POST /events` with JSON, as an honest producer would send it but for what is changed."""
    own: list[Header] = [("Content-Type", "application/json")]
    if key is not None:
        own.append(("X-API-Key", key))
    return request_bytes(headers=[*own, *headers], body=body, **request)


def talk(settings: Settings, *parts: bytes, head: bool = False, timeout_s: float = ANSWER_TIMEOUT_S, source: str = "") -> RawAnswer:
    """Send bytes on a new connection; the first answer. An answer that comes before everything was sent counts as well."""
    with RawConnection(settings, timeout_s=timeout_s, source=source) as connection:
        connection.send(*parts)
        return connection.answer(head=head)


def assert_problem(answer: RawAnswer, status: int, slug: str | None = None, *, closes: bool | None = None) -> dict[str, Any]:
    """A whole problem document of this status; `closes`: whether the server ended the connection after it, where that matters."""
    assert answer.status == status, (answer.status, answer.body[:300])
    assert answer.header("Content-Type") == CONTENT_TYPE
    document = answer.document
    assert document["status"] == status
    assert str(document["type"]).startswith(TYPE_PREFIX)
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.header("X-Request-Id")
    if slug is not None:
        assert answer.slug == slug
    if closes is not None:
        assert (answer.header("Connection") == "close") is closes
        assert answer.closed is closes
        if closes:
            assert answer.rest == b"", f"bytes behind the last answer: {answer.rest!r}"
    return document


@lru_cache(1)
def _log_reader(bootstrap_servers: str) -> Consumer:
    """One for all tests, because connecting costs a quarter of a second. Silent, because it outlives the servers."""
    return Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "tests", "enable.auto.commit": False, "log_level": 0})


def log_end(settings: Settings, topic: str = EVENTS_INGESTED) -> list[int]:
    """The next offset of each partition."""
    consumer = _log_reader(settings.kafka.bootstrap_servers)
    partitions = range(settings.kafka.partitions)
    return [consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1] for partition in partitions]


@contextmanager
def nothing_appended(settings: Settings, topic: str = EVENTS_INGESTED) -> Iterator[None]:
    """Nothing is appended to the topic within the block, by anybody."""
    before = log_end(settings, topic)
    yield
    assert log_end(settings, topic) == before, "something was appended"


def assert_honest_works(system: System, key: str, url: str | None = None) -> None:
    """The next honest request on a connection of its own is a 201. `url`: of another API process of the system."""
    answer = httpx.post(
        f"{url or system.url}/events",
        content=EVENT_BODY,
        headers={"X-API-Key": key, "Content-Type": "application/json"},
        timeout=ANSWER_TIMEOUT_S,
    )
    assert answer.status_code == 201, answer.text


def rss_bytes(system: System, process: str = "api") -> int:
    """Resident memory of a process of the system."""
    return int(psutil.Process(system.supervisor.pid(process)).memory_info().rss)


class LogMark:
    """A place in a process's log: what is written after it."""

    def __init__(self, system: System, process: str = "api") -> None:
        self._path = system.supervisor.log_path(process)
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def text(self) -> str:
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            return stream.read().decode("utf-8", "replace")

    def lines(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines since, those of one event with these fields if asked. A line that is no JSON fails: logs are one object a line."""
        found = []
        for line in self.text().splitlines():
            document = json.loads(line)
            if event in (None, document.get("event")) and all(document.get(name) == value for name, value in fields.items()):
                found.append(document)
        return found


def metric(system: System, name: str, **labels: str) -> float:
    """The sum of the samples of the API's /metrics with this name and these labels; 0 if there are none."""
    total = 0.0
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in httpx.get(f"{system.url}/metrics", timeout=ANSWER_TIMEOUT_S).text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.split("{")[0] == name and all(label in sample for label in wanted):
            total += float(value)
    return total


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def close_quietly(connections: Iterable[RawConnection]) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.socket.close()


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


def raw_event(key: str, *lines: bytes, body: bytes = EVENT_BODY) -> bytes:
    """`POST /events` with exactly these header lines beside the honest ones."""
    own = [b"POST /events HTTP/1.1", b"Host: api.test", b"Content-Type: application/json", b"X-API-Key: " + key.encode()]
    return b"\r\n".join([*own, *lines, b"", b""]) + body
