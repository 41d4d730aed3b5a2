"""What happens to an organization's endpoints, as events of its own under the reserved types. Pure.

Each has the id and the dedup key that follow from what it tells, so that a crash which makes it again makes the same one: dedup drops it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from access.times import rfc3339
from schemas import ids, keys
from schemas.deliveries import Attempted, DeadLetter
from schemas.events import RESERVED_TYPES, SCHEMA_VERSION, Ingested, Mode, is_reserved
from schemas.ids import EndpointId, OrganizationId

FAILING: Final = RESERVED_TYPES + "endpoint.failing"
RECOVERED: Final = RESERVED_TYPES + "endpoint.recovered"
DISABLED: Final = RESERVED_TYPES + "endpoint.disabled"
DEAD_LETTER: Final = RESERVED_TYPES + "delivery.dead"

_DEDUP_PREFIX: Final = "o:"


def failing(attempted: Attempted, since_ms: int) -> Ingested:
    """The endpoint's circuit breaker opened, the first time since it began to fail."""
    return _about_endpoint(FAILING, attempted, since_ms, {"status": attempted.status, "error": attempted.error})


def recovered(attempted: Attempted, since_ms: int) -> Ingested:
    return _about_endpoint(RECOVERED, attempted, since_ms, {})


def disabled(attempted: Attempted, reason: str, since_ms: int) -> Ingested:
    """`reason`: `gone` or `failing`. `since_ms`: when it began to fail, or the attempt that was answered 410."""
    return _about_endpoint(DISABLED, attempted, since_ms, {"reason": reason, "status": attempted.status, "error": attempted.error})


def dead_letter(letter: DeadLetter) -> Ingested | None:
    """None for the dead letter of an operational event: telling of it could go on for ever."""
    event = msgspec.json.decode(letter.event, type=_Type)
    if is_reserved(event.type):
        return None
    last = letter.history[-1]
    told = {
        "event_id": letter.event_id, "event_type": event.type, "endpoint_id": letter.endpoint_id, "reason": letter.reason,
        "attempts": len(letter.history), "status": last.status, "error": last.error,
        **({"round": letter.round, "cause": letter.cause} if letter.round else {}),
    }  # fmt: skip
    ref = ":".join(part for part in (letter.event_id, letter.endpoint_id, letter.round) if part)
    return _event(DEAD_LETTER, letter.organization, letter.mode, letter.dead_at_ms, ref, told)


class _Type(msgspec.Struct):
    type: str


def _about_endpoint(kind: str, attempted: Attempted, since_ms: int, more: dict[str, Any]) -> Ingested:
    told = {"endpoint_id": attempted.endpoint_id, "failing_since": rfc3339(since_ms), **more}
    return _event(kind, attempted.organization, attempted.mode, since_ms, _ref(attempted.endpoint_id, since_ms), told)


def _ref(endpoint_id: EndpointId, since_ms: int) -> str:
    return f"{endpoint_id}:{since_ms}"


def _event(kind: str, organization: OrganizationId, mode: Mode, at_ms: int, ref: str, told: dict[str, Any]) -> Ingested:
    payload = msgspec.json.encode(told)
    key = f"{_DEDUP_PREFIX}{kind}:{ref}"
    return Ingested(
        v=SCHEMA_VERSION,
        id=ids.event_id(at_ms, hashlib.sha256(f"{organization}\n{mode}\n{key}".encode()).digest()),
        organization=organization,
        mode=mode,
        type=kind,
        received_at_ms=at_ms,
        fingerprint=keys.fingerprint(kind, None, payload),
        dedup_key=key,
        payload=msgspec.Raw(payload),
    )
