"""A consumed record as pure code sees it, whichever client fetched it, and what is said of one that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from schemas.codec import CodecError


class Record(NamedTuple):
    """One record of a known topic and partition. `timestamp_ms` is its Kafka timestamp (append time on LogAppendTime topics)."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Parked(NamedTuple):
    """A record that goes to `events.rejected`, and why."""

    record: Record
    error: CodecError
