"""What delivery takes from an accepted record: the ingested value inside it, and the headers that travel on."""

from __future__ import annotations

from typing import Final

import msgspec

from runtime.kafka import Headers
from schemas.codec import HEADER_REQUEST_ID, HEADER_TRACEPARENT
from schemas.records import Record

#: Headers that travel with everything an event leads to: request id and trace.
CARRIED: Final = (HEADER_REQUEST_ID, HEADER_TRACEPARENT)


class _RawAccepted(msgspec.Struct):
    event: msgspec.Raw


_raw_event = msgspec.json.Decoder(_RawAccepted)


def carried(record: Record) -> Headers:
    """Request id and trace travel with everything an event leads to."""
    return [(name, value) for name, value in record.headers if name in CARRIED]


def ingested_value(record: Record) -> bytes:
    """The ingested value inside an accepted record, verbatim."""
    return bytes(_raw_event.decode(record.value or b"").event)
