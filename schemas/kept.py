"""An event as the inbox keeps it, made an ingested one again: whatever is posted of it is the same, byte for byte.

What the inbox does not keep (the dedup key, fields of a later minor) says nothing to a receiver. Of an encrypted event it is
the envelope, and the fingerprint is made over that: nobody compares it any more. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from schemas import ids, keys
from schemas.events import SCHEMA_VERSION, Attribute, Encoding, Ingested, Mode
from schemas.ids import EventId, OrganizationId


class Row(NamedTuple):
    """Of `folds.inbox`. `payload`: the slice as sent. `cloudevent`: a JSON object of context attributes."""

    type: str
    subject: str | None
    occurred_at: str | None
    received_at_ms: int
    content_type: str
    payload: bytes
    base64: bool
    cloudevent: str | None
    encoding: Encoding


def ingested(event_id: EventId, organization: OrganizationId, mode: Mode, row: Row) -> Ingested:
    payload = bytes(row.payload)
    attributes = None if row.cloudevent is None else msgspec.json.decode(row.cloudevent, type=dict[str, Attribute])
    mark = keys.base64_fingerprint if row.base64 else keys.fingerprint
    return Ingested(
        v=SCHEMA_VERSION, id=event_id, organization=organization, mode=mode, type=row.type, received_at_ms=row.received_at_ms,
        fingerprint=mark(row.type, row.subject, payload), subject=row.subject, occurred_at=row.occurred_at,
        content_type=row.content_type, base64=row.base64, cloudevent=attributes,
        encoding=row.encoding, payload=msgspec.Raw(payload),
    )  # fmt: skip


def range_of(since_ms: int, until_ms: int, event_id: EventId | None) -> tuple[str, str]:
    """Event ids from the first up to before the second: of a time (their own clock), or of one event."""
    if event_id is not None:
        return event_id, event_id + "0"  # the shortest text above it
    return ids.event_id(since_ms, bytes(ids.RANDOM_BYTES)), ids.event_id(until_ms, bytes(ids.RANDOM_BYTES))
