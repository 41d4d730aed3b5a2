"""Prefixed identifiers: the prefix shown to people and the type checked by mypy are declared on one line.

Every id is its prefix plus a UUID version 7 (RFC 9562 section 5.7), so a point in time follows from an event's id.
Pure: time and randomness are parameters.
"""

from __future__ import annotations

import re
from typing import Final, NewType
from uuid import UUID

EventId = NewType("EventId", str)
OrganizationId = NewType("OrganizationId", str)
EndpointId = NewType("EndpointId", str)
ApiKeyId = NewType("ApiKeyId", str)
OperatorId = NewType("OperatorId", str)
RequestId = NewType("RequestId", str)
RoundId = NewType("RoundId", str)
DataKeyId = NewType("DataKeyId", str)

EVENT_PREFIX: Final = "evt_"
ORGANIZATION_PREFIX: Final = "org_"
ENDPOINT_PREFIX: Final = "ep_"
API_KEY_PREFIX: Final = "key_"
OPERATOR_PREFIX: Final = "opr_"
REQUEST_PREFIX: Final = "req_"
ROUND_PREFIX: Final = "rnd_"
DATA_KEY_PREFIX: Final = "dk_"

#: Bytes of randomness one id takes.
RANDOM_BYTES: Final = 10
_VERSION_AND_VARIANT: Final = 0x7 << 76 | 0b10 << 62
_RANDOM_MASK: Final = 0xFFF << 64 | (1 << 62) - 1

_UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
EVENT_ID_PATTERN: Final = f"^{EVENT_PREFIX}{_UUID7}$"
ORGANIZATION_ID_PATTERN: Final = f"^{ORGANIZATION_PREFIX}{_UUID7}$"
ENDPOINT_ID_PATTERN: Final = f"^{ENDPOINT_PREFIX}{_UUID7}$"
API_KEY_ID_PATTERN: Final = f"^{API_KEY_PREFIX}{_UUID7}$"
ROUND_ID_PATTERN: Final = f"^{ROUND_PREFIX}{_UUID7}$"
DATA_KEY_ID_PATTERN: Final = f"^{DATA_KEY_PREFIX}{_UUID7}$"
_EVENT_ID = re.compile(EVENT_ID_PATTERN)


def uuid7(unix_ms: int, random: bytes) -> UUID:
    """A UUID version 7 of 48 bits of Unix milliseconds and 74 random bits (RFC 9562 section 5.7).

    `random` is at least RANDOM_BYTES long. Raises `ValueError` for a time outside 48 bits or too little randomness.
    """
    return UUID(hex=_uuid7_text(unix_ms, random))


def _uuid7_text(unix_ms: int, random: bytes) -> str:
    """Its text. Written directly: `uuid.UUID` takes three times as long, and each event has two."""
    if not 0 <= unix_ms < 1 << 48:
        raise ValueError(f"unix_ms must fit 48 bits, got {unix_ms}")
    if len(random) < RANDOM_BYTES:
        raise ValueError(f"random must hold {RANDOM_BYTES} bytes, got {len(random)}")
    digits = (unix_ms << 80 | int.from_bytes(random[:RANDOM_BYTES], "big") & _RANDOM_MASK | _VERSION_AND_VARIANT).to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def event_id(unix_ms: int, random: bytes) -> EventId:
    return EventId(EVENT_PREFIX + _uuid7_text(unix_ms, random))


def organization_id(unix_ms: int, random: bytes) -> OrganizationId:
    return OrganizationId(ORGANIZATION_PREFIX + _uuid7_text(unix_ms, random))


def endpoint_id(unix_ms: int, random: bytes) -> EndpointId:
    return EndpointId(ENDPOINT_PREFIX + _uuid7_text(unix_ms, random))


def api_key_id(unix_ms: int, random: bytes) -> ApiKeyId:
    return ApiKeyId(API_KEY_PREFIX + _uuid7_text(unix_ms, random))


def operator_id(unix_ms: int, random: bytes) -> OperatorId:
    return OperatorId(OPERATOR_PREFIX + _uuid7_text(unix_ms, random))


def request_id(unix_ms: int, random: bytes) -> RequestId:
    return RequestId(REQUEST_PREFIX + _uuid7_text(unix_ms, random))


def round_id(unix_ms: int, random: bytes) -> RoundId:
    return RoundId(ROUND_PREFIX + str(uuid7(unix_ms, random)))


def data_key_id(unix_ms: int, random: bytes) -> DataKeyId:
    return DataKeyId(DATA_KEY_PREFIX + _uuid7_text(unix_ms, random))


def parse_event_id(text: str) -> EventId | None:
    """The id, or None if `text` is not the canonical form of one (so that no second spelling of an id exists)."""
    return EventId(text) if _EVENT_ID.match(text) and not text.endswith("\n") else None


def event_time_ms(event: EventId) -> int:
    """Unix milliseconds at which the id was made (the API's clock, before the append)."""
    return UUID(event[len(EVENT_PREFIX) :]).int >> 80
