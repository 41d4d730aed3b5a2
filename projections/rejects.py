"""Rejected records, read from their topic: what could not be read, with its bytes, where it came from and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from projections.drops import drops
from projections.letters import partitions_of
from projections.scan import Progress, read_one, scan
from projections.trail import At
from runtime.settings import Settings
from schemas.codec import (
    HEADER_EVENT_ID,
    HEADER_REJECTED_DETAIL,
    HEADER_REJECTED_OFFSET,
    HEADER_REJECTED_PARTITION,
    HEADER_REJECTED_REASON,
    HEADER_REJECTED_TOPIC,
)
from schemas.lifecycle import Dropped
from schemas.records import Record
from schemas.topics import EVENTS_REJECTED


class Wanted(NamedTuple):
    """Which records; None takes all. `organization` is that of their key. Times are the records', Unix ms, `until_ms` exclusive."""

    organization: str | None = None
    event_id: str | None = None
    topic: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    dropped: bool = False


class Reject(NamedTuple):
    """A rejected record. `origin` is the record it was; its offset is -1 where the headers do not say."""

    at: At
    timestamp_ms: int
    origin: At
    reason: str
    detail: str
    event_id: str | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    dropped: Dropped | None


def rejects(settings: Settings, wanted: Wanted, *, progress: Progress) -> Iterator[Reject]:
    """Those that are wanted, partition by partition in order. Raises as `projections.scan.scan`."""
    # Whoever wrote a record under an organization's key may have put it into any partition.
    every = partitions_of(settings, None)
    put_aside = drops(settings, EVENTS_REJECTED, every, progress)
    for at, record in scan(settings, EVENTS_REJECTED, every, wanted.since_ms, progress):
        found = read(at, record, put_aside.get(at))
        if matches(found, wanted):
            yield found


def reject_at(settings: Settings, at: At, progress: Progress) -> Reject:
    """Raises as `projections.scan.read_one`."""
    record = read_one(settings, at)
    return read(at, record, drops(settings, EVENTS_REJECTED, [at.partition], progress).get(at))


def read(at: At, record: Record, dropped: Dropped | None) -> Reject:
    """Never raises: nothing is known of these bytes, and the headers may be anybody's."""
    found = {name: (value or b"").decode(errors="replace") for name, value in record.headers}

    def number(name: str) -> int:
        text = found.get(name, "")
        return int(text) if text.isascii() and text.isdecimal() else -1

    origin = At(found.get(HEADER_REJECTED_TOPIC, ""), number(HEADER_REJECTED_PARTITION), number(HEADER_REJECTED_OFFSET))
    return Reject(
        at, record.timestamp_ms, origin, found.get(HEADER_REJECTED_REASON, ""), found.get(HEADER_REJECTED_DETAIL, ""),
        found.get(HEADER_EVENT_ID), record.key, record.value, record.headers, dropped,
    )  # fmt: skip


def matches(found: Reject, wanted: Wanted) -> bool:
    return (
        (wanted.dropped or found.dropped is None)
        and (wanted.organization is None or found.key == wanted.organization.encode())
        and wanted.event_id in (None, found.event_id)
        and wanted.topic in (None, found.origin.topic)
        and wanted.reason in (None, found.reason)
        and (wanted.since_ms is None or found.timestamp_ms >= wanted.since_ms)
        and (wanted.until_ms is None or found.timestamp_ms < wanted.until_ms)
    )
