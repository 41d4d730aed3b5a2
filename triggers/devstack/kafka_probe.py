"""Asks a Kafka broker whether it serves consumer groups, in the broker's own protocol over one short connection.

A client library is not used on purpose: it keeps threads and connections of its own and logs every refusal while a broker starts, and the
call that would tell (`AdminClient.list_consumer_group_offsets` of confluent-kafka 2.16.1) crashed the process in 4 of 30 starts.
The encoding is that of the protocol guide of Apache Kafka.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_FIND_COORDINATOR: Final = 10
_OFFSET_FETCH: Final = 9
_CLIENT: Final = b"devstack"
_GROUP: Final = b"devstack-ready"
_ANSWER_BYTES_MAX: Final = 65_536
#: Error codes met while a broker starts; any other is shown by its number.
_ERRORS: Final = {14: "the group coordinator is loading", 15: "no group coordinator yet", 16: "not the group coordinator yet"}


def request(api_key: int, version: int, body: bytes) -> bytes:
    """A framed request with a version 1 header."""
    header = struct.pack(">hhih", api_key, version, 1, len(_CLIENT)) + _CLIENT
    return struct.pack(">i", len(header) + len(body)) + header + body


def find_coordinator() -> bytes:
    """FindCoordinator v1 for a group of ours: the broker makes its offsets topic when it is asked for the first time."""
    return request(_FIND_COORDINATOR, 1, struct.pack(">h", len(_GROUP)) + _GROUP + b"\0")


def offset_fetch() -> bytes:
    """OffsetFetch v2 for all topics of the group (a null array)."""
    return request(_OFFSET_FETCH, 2, struct.pack(">h", len(_GROUP)) + _GROUP + struct.pack(">i", -1))


def explain(code: int) -> str | None:
    """`None` for no error."""
    return None if code == 0 else _ERRORS.get(code, f"error {code}")


def probe(port: int, timeout_s: float) -> str | None:
    """`None` if the broker on 127.0.0.1 serves groups, else why not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as link:
            link.settimeout(timeout_s)
            # throttle time, then the error code
            found = explain(struct.unpack_from(">h", _ask(link, find_coordinator()), 4)[0])
            # an empty array of topics, then the error code
            return found or explain(struct.unpack_from(">h", _ask(link, offset_fetch())[-2:])[0])
    except (OSError, struct.error) as error:
        return str(error)


def _ask(link: socket.socket, asked: bytes) -> bytes:
    """Body of the answer, without its correlation id. Raises `OSError` for a connection that ends or an answer that makes no sense."""
    link.sendall(asked)
    size_bytes = struct.unpack(">i", _receive(link, 4))[0]
    if not 4 <= size_bytes <= _ANSWER_BYTES_MAX:
        raise OSError(f"an answer of {size_bytes} bytes is not Kafka's")
    return _receive(link, size_bytes)[4:]


def _receive(link: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = link.recv(count - len(received))
        if not part:
            raise OSError("the connection was closed")
        received += part
    return received
