"""Records about events: ingested, accepted, duplicates, acks. Ingested and accepted are different types on purpose.

Unknown fields pass through: an accepted record carries the ingested value verbatim, and readers ignore what they do not know.
`v` is the major version of a record's schema; a reader parks majors it does not know (see `schemas.codec`).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Raw, Struct

from schemas.ids import DATA_KEY_ID_PATTERN, EVENT_ID_PATTERN, ORGANIZATION_ID_PATTERN, DataKeyId, EventId, OrganizationId

SCHEMA_VERSION: Final = 1

Mode = Literal["live", "test"]
MODES: Final[tuple[Mode, ...]] = ("live", "test")

#: An event type: segments of letters, digits, `_` and `-` joined by dots (CloudEvents 1.0 advises reverse DNS; Svix's set of characters).
EVENT_TYPE_PATTERN: Final = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
EVENT_TYPE_CHARS_MAX: Final = 256
#: What happens to an organization's endpoints is told to it as events of these types (`delivery.operational`). No producer may send them.
RESERVED_TYPES: Final = "triggers."
#: Of a test at an endpoint, unless another is asked for. It is in no inbox.
TEST_TYPE: Final = RESERVED_TYPES + "test"
SUBJECT_CHARS_MAX: Final = 256
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255

# Postgres text cannot hold NUL.
_NO_NUL = r"\A[^\x00]*\Z"
EventIdField = Annotated[EventId, Meta(pattern=EVENT_ID_PATTERN, max_length=64)]
OrganizationIdField = Annotated[OrganizationId, Meta(pattern=ORGANIZATION_ID_PATTERN, max_length=64)]
DataKeyIdField = Annotated[DataKeyId, Meta(pattern=DATA_KEY_ID_PATTERN, max_length=64)]
EventTypeField = Annotated[str, Meta(pattern=EVENT_TYPE_PATTERN, max_length=EVENT_TYPE_CHARS_MAX)]
TextField = Annotated[str, Meta(pattern=_NO_NUL, max_length=4_096)]
Milliseconds = Annotated[int, Meta(ge=0, lt=1 << 53)]
Offset = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


#: How a payload is kept: as it was sent, or in an `Envelope` under AES-256-GCM.
Encoding = Literal["plain", "aes256gcm"]
PLAIN: Final[Encoding] = "plain"
ENCRYPTED: Final[Encoding] = "aes256gcm"

#: A CloudEvents context attribute as its JSON format has it: String and the textual types, Integer, Boolean (CloudEvents 1.0 section 3).
Attribute = str | int | bool


class Ingested(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as the API appended it. Key: organization. Its log append time is the record's Kafka timestamp.

    `payload` is the exact slice of JSON the producer sent. `dedup_key` is None for an event without an idempotency key
    (see `schemas.keys`). `encoding` names how payload is kept: `plain`, or `aes256gcm` for an `Envelope` that holds
    payload, subject and a CloudEvent's attributes: then `subject` and `cloudevent` are None here, and `fingerprint` is an HMAC.
    `occurred_at` is the producer's text as sent (RFC 3339). `received_at_ms` is the API's clock, Unix milliseconds. With `base64` the
    payload is a JSON string holding data of `content_type`, which is no JSON itself. `cloudevent`: the context attributes of what came as
    a CloudEvent.
    """

    v: int
    id: EventIdField
    organization: OrganizationIdField
    mode: Mode
    type: EventTypeField
    received_at_ms: Milliseconds
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    dedup_key: TextField | None = None
    subject: TextField | None = None
    occurred_at: TextField | None = None
    content_type: TextField = "application/json"
    encoding: Encoding = PLAIN
    base64: bool = False
    cloudevent: dict[str, Attribute] | None = None
    payload: Raw


class Envelope(Struct, frozen=True):
    """What an encrypted event has as its payload: the data key's id; nonce (96 bits) and ciphertext with its tag, both base64.

    Opened by `access.envelopes`. Without the data key, which `triggers erase` destroys, nobody can.
    """

    key: DataKeyIdField
    nonce: Annotated[str, Meta(min_length=16, max_length=16)]
    ciphertext: str


class Origin(Struct, frozen=True):
    """Where an accepted or dropped event stands in `events.ingested` (same partition): offset and log append time."""

    offset: Offset
    appended_at_ms: Milliseconds


class First(Struct, frozen=True, kw_only=True):
    """Where an event that was moved to a later topic generation was accepted first: its position in the inbox, which never moves, and the
    offset of its ingested record in the same partition of that generation."""

    generation: Annotated[int, Meta(ge=1, lt=1 << 31)]
    partition: Annotated[int, Meta(ge=0, lt=1 << 31)]
    offset: Offset
    ingested_offset: Offset


class Accepted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first occurrence of an event: a pure function of its ingested record. Key: organization; same partition.

    `first`: of what was accepted in an earlier topic generation; None for all that was accepted where it stands.
    """

    v: int
    ingested: Origin
    first: First | None = None
    event: Ingested


class Duplicate(Struct, frozen=True, kw_only=True):
    """An event that lost to an earlier one under its dedup key: `duplicate` (same fingerprint) or `conflict` (another body)."""

    v: int
    id: EventIdField
    organization: OrganizationIdField
    mode: Mode
    type: EventTypeField
    original_id: EventIdField
    kind: Literal["duplicate", "conflict"]
    ingested: Origin


class Ack(Struct, frozen=True, kw_only=True):
    """The valid ids of one acknowledge call. Key: organization. Its time is the record's log append time."""

    v: int
    organization: OrganizationIdField
    mode: Mode
    ids: Annotated[list[EventIdField], Meta(min_length=1, max_length=100)]


def is_reserved(event_type: str) -> bool:
    return event_type.startswith(RESERVED_TYPES)
