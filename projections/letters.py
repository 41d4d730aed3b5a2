"""Dead letters, read from their topic: deliveries that were given up, with all that is needed to make them again.

`letters` is the selection that every command works on (list, drop, redrive).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from projections.drops import drops
from projections.scan import Progress, read_one, scan
from projections.trail import At
from runtime.settings import Settings
from schemas import codec
from schemas.codec import CodecError
from schemas.deliveries import DeadLetter
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key
from schemas.lifecycle import Dropped
from schemas.records import Record
from schemas.topics import DELIVERIES_DEAD


class Wanted(NamedTuple):
    """Which letters; None takes all. Times are of giving up, Unix ms, `until_ms` exclusive."""

    organization: str | None = None
    endpoint_id: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    dropped: bool = False


class Letter(NamedTuple):
    """A letter and its place. `event_type` is None where the event in it cannot be read. `headers`: trace and request travel in them."""

    at: At
    letter: DeadLetter
    event_type: str | None
    dropped: Dropped | None
    headers: Sequence[tuple[str, bytes | None]]


#: Told of a record that is no letter: its place, and why.
Unreadable = Callable[[At, CodecError], None]


class _Type(msgspec.Struct):
    type: str


_type = msgspec.json.Decoder(_Type)


def letters(settings: Settings, wanted: Wanted, *, unreadable: Unreadable, progress: Progress) -> Iterator[Letter]:
    """Those that are wanted, partition by partition in the order in which they were given up. Reads to the end as it is now.

    Raises as `projections.scan.scan`.
    """
    partitions = partitions_of(settings, wanted.organization)
    put_aside = drops(settings, DELIVERIES_DEAD, partitions, progress)
    for at, record in scan(settings, DELIVERIES_DEAD, partitions, wanted.since_ms, progress):
        try:
            letter = read(at, record, put_aside.get(at))
        except CodecError as error:
            if wanted.organization is None or record.key == wanted.organization.encode():
                unreadable(at, error)
            continue
        if matches(letter, wanted):
            yield letter


def letter_at(settings: Settings, at: At, progress: Progress) -> Letter:
    """Raises `CodecError` for a record that is no letter, and as `projections.scan.read_one`."""
    record = read_one(settings, at)
    return read(at, record, drops(settings, DELIVERIES_DEAD, [at.partition], progress).get(at))


def read(at: At, record: Record, dropped: Dropped | None) -> Letter:
    letter = codec.dead_letter.decode(record.value)
    if record.key != record_key(letter.organization):
        raise CodecError("key_mismatch", "the record's key is not the organization in its value")
    try:
        event_type = _type.decode(letter.event).type
    except msgspec.DecodeError:
        event_type = None
    return Letter(at, letter, event_type, dropped, record.headers)


def matches(found: Letter, wanted: Wanted) -> bool:
    letter = found.letter
    return (
        (wanted.dropped or found.dropped is None)
        and wanted.organization in (None, letter.organization)
        and wanted.endpoint_id in (None, letter.endpoint_id)
        and wanted.event_id in (None, letter.event_id)
        and wanted.event_type in (None, found.event_type)
        and wanted.reason in (None, letter.reason)
        and (wanted.since_ms is None or letter.dead_at_ms >= wanted.since_ms)
        and (wanted.until_ms is None or letter.dead_at_ms < wanted.until_ms)
    )


def partitions_of(settings: Settings, organization: str | None) -> Sequence[int]:
    """The one of an organization, or all."""
    count = settings.kafka.partitions
    return range(count) if organization is None else [partition_of(record_key(OrganizationId(organization)), count)]
