"""Bytes to records and back. Every consumer decodes through here, so unknown majors and garbage are told apart in one place.

Payload slices stay `msgspec.Raw`: they are never parsed into objects and leave byte for byte as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic, Literal, TypeVar

import msgspec

from schemas.deliveries import DeadLetter, FifoPosition, JournalRecord, RequestRecord, RetryTask
from schemas.events import ENCRYPTED, PLAIN, SCHEMA_VERSION, Accepted, Ack, Attribute, Duplicate, Encoding, Ingested
from schemas.lifecycle import LifecycleRecord

T = TypeVar("T")

# Record headers. Names are lower case with dashes, values UTF-8.
HEADER_EVENT_ID: Final = "event-id"
HEADER_SCHEMA_VERSION: Final = "schema-version"
HEADER_CONTENT_ENCODING: Final = "content-encoding"
HEADER_TRACEPARENT: Final = "traceparent"
HEADER_REQUEST_ID: Final = "request-id"
# Added to a record that is parked in events.rejected: where it came from and why (its value, key and other headers stay as found).
HEADER_REJECTED_TOPIC: Final = "rejected-topic"
HEADER_REJECTED_PARTITION: Final = "rejected-partition"
HEADER_REJECTED_OFFSET: Final = "rejected-offset"
HEADER_REJECTED_REASON: Final = "rejected-reason"
HEADER_REJECTED_DETAIL: Final = "rejected-detail"

RejectReason = Literal["malformed", "unknown_version", "tombstone", "key_mismatch", "wrong_partition", "too_large"]

#: Bytes of an error's text kept in a header.
_DETAIL_BYTES_MAX: Final = 1_000

#: Headers of every record this version writes, beside event id and trace.
STANDARD_HEADERS: Final[tuple[tuple[str, bytes], ...]] = (
    (HEADER_SCHEMA_VERSION, str(SCHEMA_VERSION).encode()),
    (HEADER_CONTENT_ENCODING, b"plain"),
)
_ENCRYPTED_HEADERS: Final = ((HEADER_SCHEMA_VERSION, str(SCHEMA_VERSION).encode()), (HEADER_CONTENT_ENCODING, ENCRYPTED.encode()))


class CodecError(ValueError):
    """A record that cannot be read: it is parked with `reason`, never dropped and never retried as it is."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail


def rejected_headers(topic: str, partition: int, offset: int, error: CodecError) -> list[tuple[str, bytes]]:
    """Origin and reason, added to the headers of a record that is parked in `events.rejected`."""
    return [
        (HEADER_REJECTED_TOPIC, topic.encode()),
        (HEADER_REJECTED_PARTITION, b"%d" % partition),
        (HEADER_REJECTED_OFFSET, b"%d" % offset),
        (HEADER_REJECTED_REASON, error.reason.encode()),
        (HEADER_REJECTED_DETAIL, error.detail.encode()[:_DETAIL_BYTES_MAX]),
    ]


class _Version(msgspec.Struct):
    v: int


_version_decoder = msgspec.json.Decoder(_Version)
_encoder = msgspec.json.Encoder()


class Codec(Generic[T]):
    """Decoder of one record type. `decode` raises `CodecError` for anything that is not a record of a known major version."""

    def __init__(self, *types: object) -> None:
        union: object = types[0]
        for other in types[1:]:
            union = union | other  # type: ignore[operator]
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(union)

    def decode(self, value: bytes | None) -> T:
        if value is None:
            raise CodecError("tombstone", "the value is null")
        try:
            if not value.isascii():
                str(value, "utf-8")  # msgspec skips over a `Raw` slice without checking its UTF-8
            record = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(value, error) from None
        version: int = record.v  # type: ignore[attr-defined]
        if version != SCHEMA_VERSION:
            raise _unknown(version)
        return record

    @staticmethod
    def _explain(value: bytes, error: Exception) -> CodecError:
        """A record of another major need not fit the struct at all, so its version is looked for before it is called malformed."""
        try:
            version = _version_decoder.decode(value).v
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            version = SCHEMA_VERSION
        return _unknown(version) if version != SCHEMA_VERSION else CodecError("malformed", str(error))


def _unknown(version: int) -> CodecError:
    return CodecError("unknown_version", f"schema version {version} is not known here (known: {SCHEMA_VERSION})")


ingested: Final[Codec[Ingested]] = Codec(Ingested)
accepted: Final[Codec[Accepted]] = Codec(Accepted)
duplicate: Final[Codec[Duplicate]] = Codec(Duplicate)
ack: Final[Codec[Ack]] = Codec(Ack)
journal: Final[Codec[JournalRecord]] = Codec(*JournalRecord.__args__)
retry_task: Final[Codec[RetryTask]] = Codec(RetryTask)
dead_letter: Final[Codec[DeadLetter]] = Codec(DeadLetter)
fifo_position: Final[Codec[FifoPosition]] = Codec(FifoPosition)
request: Final[Codec[RequestRecord]] = Codec(*RequestRecord.__args__)
lifecycle: Final[Codec[LifecycleRecord]] = Codec(*LifecycleRecord.__args__)


def encode(record: msgspec.Struct) -> bytes:
    """UTF-8 JSON of any record type, fields in declaration order; `Raw` fields verbatim."""
    return _encoder.encode(record)


def encode_attributes(attributes: Mapping[str, Attribute]) -> str:
    """A CloudEvent's context attributes as a JSON object, in the order they came."""
    return _encoder.encode(attributes).decode()


def standard_headers(encoding: Encoding) -> tuple[tuple[str, bytes], ...]:
    """`STANDARD_HEADERS` of a record whose payload is kept so."""
    return STANDARD_HEADERS if encoding == PLAIN else _ENCRYPTED_HEADERS


def encode_accepted(ingested_value: bytes, offset: int, appended_at_ms: int) -> bytes:
    """The accepted record of an ingested one: its value verbatim (unknown fields too) beside the position it came from."""
    return b'{"v":%d,"ingested":{"offset":%d,"appended_at_ms":%d},"event":%b}' % (SCHEMA_VERSION, offset, appended_at_ms, ingested_value)


#: What `encode_accepted` adds at most: bounds the size of an output before it is produced.
ACCEPTED_OVERHEAD_BYTES_MAX: Final = len(encode_accepted(b"", (1 << 63) - 1, 1 << 53))
