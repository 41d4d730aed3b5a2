"""What OpenAPI shows of the read side: schemas of its answers and an example of each, kept out of the way of the code."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from access.openapi import INTEGER, TEXT, TIME, Responses, Schema, answered, many, nullable, record, sent
from projections.endpoint_docs import CAUSE, ROUND
from schemas import ids

ACK_IDS_MAX: Final = 100

_EVENT_ID: Final[Schema] = {"type": "string", "pattern": ids.EVENT_ID_PATTERN}
_EXAMPLE_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_PAYLOAD: Final = b'{"order":17,"amount":20.5}'
_ENDPOINT_ID: Final = "ep_01a20b40-1000-7000-8000-000000000002"

_POSITION: Final[Schema] = record("Position", generation=INTEGER, partition=INTEGER, offset=INTEGER)
_SENT: Final[Schema] = record("LogPosition", partition=INTEGER, offset=INTEGER, appended_at=TIME)
_STATUS: Final[Schema] = {
    "type": "string",
    "enum": ["none", "pending", "retrying", "delivered", "failed", "acknowledged"],
    "description": "Of its webhooks over all endpoints; `none` without endpoints, `acknowledged` once acknowledged.",
}
_INBOX_EVENT: Final[Schema] = record(
    "InboxEvent",
    optional=["payload", "data_base64"],
    id=_EVENT_ID,
    type=TEXT,
    subject=nullable(TEXT),
    occurred_at={"type": ["string", "null"], "description": "As it was sent (RFC 3339)."},
    received_at=TIME,
    content_type=TEXT,
    status=_STATUS,
    ack=nullable(record("AckTime", acked_at=TIME)),
    position=_POSITION,
    cloudevent={"type": ["object", "null"], "description": "The context attributes of what came as a CloudEvent."},
    erased={"type": "boolean", "description": "Whether its data was erased: `payload`, `subject` and `cloudevent` are null then."},
    payload={"description": "The JSON that was sent, byte for byte."},
    data_base64={
        "type": ["string", "null"],
        "contentEncoding": "base64",
        "description": "Instead of `payload`: data of a `content_type` that is not JSON.",
    },
)
_MISSED: Final[Schema] = record("Truncated", first=_POSITION, last=_POSITION)
_PAGE: Final[Schema] = record(
    "InboxPage",
    events=many(_INBOX_EVENT),
    next_cursor={"type": "string", "description": "Always there and safe to store: send it for what comes behind this page."},
    has_more={"type": "boolean", "description": "Whether there is more already."},
    truncated={
        **nullable(_MISSED),
        "description": "What retention took behind the cursor: from right after it to the last that is gone. Events in between that were "
        "not taken are in this page and those behind it.",
    },
    next_poll_ms={"type": "integer", "description": "Milliseconds to wait before asking again."},
)
_ITEM: Final[dict[str, Any]] = {
    "id": _EXAMPLE_ID, "type": "order.paid", "subject": "order/17", "occurred_at": "2026-11-24T02:31:23Z",
    "received_at": "2026-11-24T02:31:23.155Z", "content_type": "application/json", "status": "delivered", "ack": None,
    "position": {"generation": 1, "partition": 2, "offset": 41}, "cloudevent": None, "erased": False,
    "payload": {"order": 17, "amount": 20.5},
}  # fmt: skip
_CURSOR: Final = "AQAAAAEAAAACAAAAAAAAACkX0m2T9q8uJw4yPsBh"
_REST: Final[dict[str, Any]] = {"next_cursor": _CURSOR, "has_more": False, "truncated": None, "next_poll_ms": 1000}
_OF_BYTES: Final[dict[str, Any]] = {
    **{name: value for name, value in _ITEM.items() if name != "payload"},
    "type": "label.printed", "subject": None, "occurred_at": None, "content_type": "image/png", "status": "acknowledged",
    "ack": {"acked_at": "2026-11-24T02:31:25.020Z"}, "data_base64": "iVBORw0KGgo=",
    "cloudevent": {"specversion": "1.0", "id": "17-label", "source": "https://shop.example/orders", "type": "label.printed",
                   "datacontenttype": "image/png"},
}  # fmt: skip
PAGE: Final[Responses] = answered(
    200, "A page, in log order.", _PAGE,
    one_event={"events": [_ITEM], **_REST}, a_cloudevent_of_bytes={"events": [_OF_BYTES], **_REST}, nothing_new={"events": [], **_REST},
    after_retention={
        "events": [_ITEM], **_REST,
        "truncated": {
            "first": {"generation": 1, "partition": 2, "offset": 17}, "last": {"generation": 1, "partition": 2, "offset": 40},
        },
    },
)  # fmt: skip

_ACK_RESULT: Final[Schema] = record("AckResult", id=TEXT, status={"type": "string", "enum": ["acknowledged", "unknown"]})
ACKNOWLEDGED: Final[Responses] = answered(
    200, "What became of each id, in the order sent. Ids of others look like ids of nobody.",
    record("Acknowledged", acknowledged=INTEGER, failed=INTEGER, results=many(_ACK_RESULT)),
    all_acknowledged={"acknowledged": 1, "failed": 0, "results": [{"id": _EXAMPLE_ID, "status": "acknowledged"}]},
    one_unknown={"acknowledged": 0, "failed": 1, "results": [{"id": "evt_no-such-event", "status": "unknown"}]},
)  # fmt: skip
ACK_REQUEST: Final[dict[str, Any]] = sent(
    {
        "title": "Acknowledge",
        "type": "object",
        "required": ["ids"],
        "additionalProperties": False,
        "properties": {"ids": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": ACK_IDS_MAX}},
    },
    one={"ids": [_EXAMPLE_ID]},
)

_ATTEMPT: Final[Schema] = record(
    "Attempt",
    attempt={"type": "integer", "minimum": 1},
    outcome={"type": "string", "enum": ["delivered", "failed"]},
    started_at=TIME,
    duration_ms=nullable(INTEGER),
    status={"type": ["integer", "null"], "description": "The HTTP status of the endpoint's answer."},
    error={"type": ["string", "null"], "description": "Why there was no answer that counts."},
    worker=nullable(TEXT),
    next={"type": ["string", "null"], "description": "What follows a failure: `retry` or `dead`."},
    next_at=nullable(TIME),
    dead_reason=nullable(TEXT),
    round=ROUND,
    cause=CAUSE,
)
_NEXT_ATTEMPT: Final[Schema] = record(
    "NextAttempt",
    attempt={"type": "integer", "minimum": 1},
    not_before={**nullable(TIME), "description": "null: it is under way, or waits for its turn."},
)
_ENDPOINT: Final[Schema] = {"type": "string", "pattern": ids.ENDPOINT_ID_PATTERN}
_DELIVERY: Final[Schema] = record(
    "Delivery",
    endpoint_id=_ENDPOINT,
    state={
        "type": "string",
        "enum": ["planned", "retrying", "delivered", "dead"],
        "description": "planned: no attempt was made. retrying: one failed, another follows. dead: given up.",
    },
    next_attempt={**nullable(_NEXT_ATTEMPT), "description": "The attempt to come, if any."},
    attempts=many(_ATTEMPT),
)
_STATE: Final[Schema] = record(
    "EventState",
    optional=[
        "original_id", "type", "subject", "occurred_at", "received_at", "payload_bytes", "payload_sha256", "ingested", "accepted", "ack",
        "erased", "deliveries", "held",
    ],
    id=_EVENT_ID,
    status={
        "type": "string",
        "enum": ["pending", "accepted", "duplicate", "conflict", "rejected"],
        "description": "pending: in the log, not judged yet. duplicate, conflict: `original_id` came first under this key.",
    },
    original_id=_EVENT_ID,
    type=TEXT,
    subject=nullable(TEXT),
    occurred_at=nullable(TEXT),
    received_at=TIME,
    payload_bytes=nullable(INTEGER),
    payload_sha256={"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
    erased={"type": "boolean", "description": "Whether its data was erased; nothing of it can be read again."},
    ingested=_SENT,
    accepted=_POSITION,
    ack=nullable(record("Ack", acked_at=TIME, offset=INTEGER)),
    deliveries=many(_DELIVERY),
    held={**many(_ENDPOINT), "description": "Endpoints that would have got it and were disabled when it came."},
)  # fmt: skip
_INGESTED: Final[dict[str, Any]] = {"partition": 2, "offset": 41, "appended_at": "2026-11-24T02:31:23.158Z"}
_ATTEMPT_SHOWN: Final[dict[str, Any]] = {
    "attempt": 1, "outcome": "delivered", "started_at": "2026-11-24T02:31:23.171Z", "duration_ms": 4, "status": 204, "error": None,
    "worker": "delivery-0", "next": None, "next_at": None, "dead_reason": None, "round": None, "cause": None,
}  # fmt: skip
EVENT: Final[Responses] = answered(
    200, "What became of the event.", _STATE,
    accepted={
        "id": _EXAMPLE_ID, "status": "accepted", "type": "order.paid", "subject": "order/17", "occurred_at": "2026-11-24T02:31:23Z",
        "received_at": "2026-11-24T02:31:23.155Z", "payload_bytes": len(_PAYLOAD),
        "payload_sha256": hashlib.sha256(_PAYLOAD).hexdigest(), "erased": False, "ingested": _INGESTED,
        "accepted": {"generation": 1, "partition": 2, "offset": 41}, "ack": {"acked_at": "2026-11-24T02:31:25.020Z", "offset": 12},
        "deliveries": [{"endpoint_id": _ENDPOINT_ID, "state": "delivered", "next_attempt": None, "attempts": [_ATTEMPT_SHOWN]}], "held": [],
    },
    pending={"id": _EXAMPLE_ID, "status": "pending"},
    duplicate={
        "id": "evt_01a20b40-3a01-7d11-9c00-3a5e0c6fd2a1", "status": "duplicate", "original_id": _EXAMPLE_ID, "type": "order.paid",
        "ingested": {"partition": 2, "offset": 57, "appended_at": "2026-11-24T02:31:29.001Z"},
    },
)  # fmt: skip
