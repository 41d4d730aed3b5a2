"""The hash chain of an audit export. Pure; `docs/operating/audit.md` says the same in words and in a checker of its own.

Each link is SHA-256 over the link before and one record: its place, time, key, headers and value, each with its length in front, so that no
two different records have the same bytes under the hash. The first link is over what the file is about.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

FORMAT: Final = 1
_NOTHING: Final = -1


def first_link(organization: str, topic: str, partition: int, generation: int) -> bytes:
    """The link before the first record: 32 bytes."""
    return sha256(
        b"\0".join([b"triggers-audit-%d" % FORMAT, organization.encode(), topic.encode(), b"%d" % partition, b"%d" % generation])
    ).digest()


def next_link(
    before: bytes, offset: int, timestamp_ms: int, key: bytes | None, headers: Sequence[tuple[str, bytes | None]], value: bytes | None
) -> bytes:
    """The link of one record. Numbers are big-endian: offset and time in 64 bits, lengths and the count of headers in 32."""
    parts = [before, struct.pack(">qq", offset, timestamp_ms), _blob(key), struct.pack(">i", len(headers))]
    for name, content in headers:
        parts += [_blob(name.encode()), _blob(content)]
    return sha256(b"".join([*parts, _blob(value)])).digest()


def _blob(content: bytes | None) -> bytes:
    """Null is not the same as empty: Kafka tells them apart."""
    return struct.pack(">i", _NOTHING) if content is None else struct.pack(">i", len(content)) + content
