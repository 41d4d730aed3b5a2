"""What OpenAPI shows of the reads of one endpoint: schemas of the answers and examples of them."""

from __future__ import annotations

from typing import Final, get_args

from access.openapi import INTEGER, TIME, Responses, Schema, answered, many, nullable, record
from schemas import ids
from schemas.deliveries import Cause

ROUND: Final[Schema] = {
    "type": ["string", "null"], "pattern": ids.ROUND_ID_PATTERN, "description": "Of the call that asked for it; null: nobody did.",
}  # fmt: skip
CAUSE: Final[Schema] = {"type": ["string", "null"], "enum": [*get_args(Cause), None], "description": "What was asked for."}
_EVENT_ID: Final[Schema] = {"type": "string", "pattern": ids.EVENT_ID_PATTERN}
_FIRST_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_LAST_ID: Final = "evt_01a20b40-3a01-7d11-9c00-3a5e0c6fd2a1"

_ATTEMPT: Final[Schema] = record(
    "EndpointAttempt",
    event_id=_EVENT_ID,
    attempt={"type": "integer", "minimum": 1},
    outcome={"type": "string", "enum": ["delivered", "failed"]},
    started_at=TIME,
    duration_ms=INTEGER,
    status={"type": ["integer", "null"], "description": "The HTTP status of the endpoint's answer."},
    error={"type": ["string", "null"], "description": "Why there was no answer that counts: a class, as `status` or `timeout`."},
    response_base64={
        "type": ["string", "null"],
        "contentEncoding": "base64",
        "description": "The first bytes of the answer's body; null once its event was erased.",
    },
    next={"type": ["string", "null"], "enum": ["retry", "dead", None], "description": "What follows a failure."},
    next_at=nullable(TIME),
    dead_reason={"type": ["string", "null"], "description": "Why no other attempt is made."},
    round=ROUND,
    cause=CAUSE,
)
ATTEMPTS: Final[Responses] = answered(
    200, "A page, newest first.",
    record("EndpointAttempts", attempts=many(_ATTEMPT), next={**nullable(INTEGER), "description": "The next `before`."}),
    with_more_behind={
        "attempts": [
            {
                "event_id": _FIRST_ID, "attempt": 1, "outcome": "failed", "started_at": "2026-11-24T02:31:23.171Z", "duration_ms": 41,
                "status": 503, "error": "status", "response_base64": "dHJ5IGxhdGVy", "next": "retry",
                "next_at": "2026-11-24T02:31:53.212Z", "dead_reason": None, "round": None, "cause": None,
            }
        ],
        "next": 4711,
    },
)  # fmt: skip
HELD: Final[Responses] = answered(
    200, "What it missed.",
    record(
        "HeldEvents",
        held={"type": "integer", "minimum": 0, "description": "Events it would have taken and that came while it was disabled."},
        first_event_id=nullable(_EVENT_ID),
        last_event_id=nullable(_EVENT_ID),
    ),
    some={"held": 12, "first_event_id": _FIRST_ID, "last_event_id": _LAST_ID},
    none={"held": 0, "first_event_id": None, "last_event_id": None},
)  # fmt: skip
