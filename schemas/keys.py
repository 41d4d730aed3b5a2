"""Keys: record keys and their partition, dedup keys, fingerprints. Each is one spelling used by every package.

The separators cannot collide: everything before a free-text part is either of fixed form (an id, a mode) or length-prefixed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from schemas.ids import OrganizationId

#: Organizations remembered by `partition_of`; past it the hash is simply computed again.
_PARTITION_CACHE_SIZE: Final = 65_536


def record_key(organization: OrganizationId) -> bytes:
    """The Kafka key of every topic keyed by organization: the UTF-8 bytes of its id, never null."""
    return organization.encode()


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 with the seed of Kafka's default partitioner (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    whole = length - length % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = k * multiplier & mask
        k = (k ^ k >> 24) * multiplier & mask
        h = (h * multiplier & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * multiplier & mask
    h = (h ^ h >> 13) * multiplier & mask
    return h ^ h >> 15


@lru_cache(_PARTITION_CACHE_SIZE)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner (Java; librdkafka's `murmur2`) gives a keyed record."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def native_dedup_key(idempotency_key: str) -> str:
    """The `dedup_key` of an event sent with an idempotency key."""
    return "k:" + idempotency_key


def cloudevents_dedup_key(source: str, event: str) -> str:
    """The `dedup_key` of a CloudEvent: `source` + `id` identify it (CloudEvents 1.0, section 3.1.1). Unambiguous by length prefix."""
    return f"c:{len(source)}:{source}{event}"


def table_key(organization: OrganizationId, mode: str, dedup_key: str) -> bytes:
    """Key of the dedup table and its changelog. Organization and mode never hold a line feed, so the parts cannot run together."""
    return f"{organization}\n{mode}\n{dedup_key}".encode()


def fingerprint(event_type: str, subject: str | None, payload: bytes) -> str:
    """SHA-256 (hex) over type, subject and payload slice: what makes two requests under one key the same event.

    The format they came in (native, CloudEvents) does not count. An absent subject differs from an empty one.
    """
    digest = hashlib.sha256()
    kind = event_type.encode()
    digest.update(b"%d:" % len(kind) + kind)
    if subject is None:
        digest.update(b"-")
    else:
        text = subject.encode()
        digest.update(b"%d:" % len(text) + text)
    digest.update(payload)
    return digest.hexdigest()


def base64_fingerprint(event_type: str, subject: str | None, payload: bytes) -> str:
    """The same for data that is no JSON and travels as a base64 string: never that of an event whose payload is such a string."""
    return fingerprint(event_type, subject, b"base64:" + payload)
