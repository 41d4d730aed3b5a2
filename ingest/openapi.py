"""What the hot path looks like in OpenAPI. Requests never come through these routes: `ingest.app.Front` takes them first."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter

from access.http import PROBLEM_SCHEMA, RATE_HEADERS, problem_responses
from ingest.formats import ITEMS_MAX
from schemas import problems
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, IDEMPOTENCY_KEY_CHARS_MAX, SUBJECT_CHARS_MAX

_EXAMPLE_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_RECEIVED_AT: Final = "2026-11-24T02:31:23.155Z"
_WINDOW_S: Final = 86_400
_EVENT: Final[dict[str, Any]] = {
    "type": "order.paid",
    "payload": {"order": 17, "amount": 20.5},
    "idempotency_key": "order-17-paid",
    "occurred_at": "2026-11-24T02:31:23Z",
    "subject": "order/17",
}
_CLOUDEVENT: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "17-paid",
    "source": "https://shop.example/orders",
    "type": "order.paid",
    "subject": "order/17",
    "time": "2026-11-24T02:31:23Z",
    "datacontenttype": "application/json",
    "data": {"order": 17, "amount": 20.5},
}
_CREATED: Final[dict[str, Any]] = {
    "id": _EXAMPLE_ID,
    "status": "pending",
    "received_at": _RECEIVED_AT,
    "idempotency_window_s": _WINDOW_S,
}

_TYPE: Final[dict[str, Any]] = {"type": "string", "maxLength": EVENT_TYPE_CHARS_MAX, "pattern": EVENT_TYPE_PATTERN}
EVENT_SCHEMA: Final[dict[str, Any]] = {
    "title": "Event",
    "type": "object",
    "required": ["type", "payload"],
    "additionalProperties": False,
    "properties": {
        "type": _TYPE,
        "payload": {"description": "Any JSON value, at most 262,144 bytes as sent. Kept and delivered byte for byte."},
        "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARS_MAX},
        "occurred_at": {"type": ["string", "null"], "format": "date-time"},
        "subject": {"type": ["string", "null"], "minLength": 1, "maxLength": SUBJECT_CHARS_MAX},
    },
}
CLOUDEVENT_SCHEMA: Final[dict[str, Any]] = {
    "title": "CloudEvent",
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 512},
        "source": {"type": "string", "minLength": 1, "maxLength": 512},
        "type": _TYPE,
        "subject": {"type": ["string", "null"], "minLength": 1, "maxLength": SUBJECT_CHARS_MAX},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "datacontenttype": {"type": ["string", "null"]},
        "dataschema": {"type": ["string", "null"]},
        "data": {},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    },
    "additionalProperties": {"type": ["string", "boolean", "integer", "null"]},
}
CREATED_SCHEMA: Final[dict[str, Any]] = {
    "title": "Created",
    "type": "object",
    "required": ["id", "status", "received_at"],
    "properties": {
        "id": {"type": "string"},
        "status": {"type": "string", "enum": ["pending"]},
        "received_at": {"type": "string", "format": "date-time"},
        "idempotency_window_s": {"type": "integer", "description": "With a key: for so long it names this event and no other."},
    },
}
RESULTS_SCHEMA: Final[dict[str, Any]] = {
    "title": "BatchResults",
    "type": "object",
    "required": ["appended", "refused", "results"],
    "properties": {
        "appended": {"type": "integer"},
        "refused": {"type": "integer"},
        "results": {
            "type": "array",
            "description": "One for each event, in order.",
            "items": {
                "title": "BatchResult",
                "type": "object",
                "required": ["index", "status"],
                "properties": {
                    "index": {"type": "integer"},
                    "status": {"type": "integer", "description": "What `POST /events` would have answered."},
                    "event": CREATED_SCHEMA,
                    "problem": PROBLEM_SCHEMA,
                    "retry_after_s": {"type": "integer"},
                },
            },
        },
    },
}

_COMMON: Final = (
    problems.MALFORMED_REQUEST, problems.URI_TOO_LONG, problems.OVERLOADED, problems.ORGANIZATION_SUSPENDED,
    problems.INVALID_BODY, problems.INVALID_HEADER, problems.MALFORMED_JSON, problems.MISSING_KEY, problems.INVALID_KEY, problems.FORBIDDEN,
    problems.REQUEST_TIMEOUT, problems.BODY_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE, problems.HEADERS_TOO_LARGE, problems.RATE_LIMITED,
    problems.INTERNAL, problems.UNAVAILABLE,
)  # fmt: skip
_ONE: Final = (
    problems.PAYLOAD_TOO_LARGE, problems.DUPLICATE, problems.IN_FLIGHT, problems.INVALID_EVENT, problems.KEY_REUSED, problems.NOT_APPENDED,
    problems.UNKNOWN_OUTCOME, problems.SCHEMA_VIOLATION,
)  # fmt: skip

_KEY: Final[dict[str, Any]] = {"name": "X-API-Key", "in": "header", "required": True, "schema": {"type": "string"}}
_ENCODING: Final[dict[str, Any]] = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
    "description": "The limits hold for what is inflated.",
}
_IDEMPOTENCY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Instead of `idempotency_key` in the body. Within 24 h the same key answers 409 with the event's id.",
}


def _json(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema, "example": example}


def router() -> APIRouter:
    """The documented routes."""
    routes = APIRouter(tags=["events"])
    location = {"Location": {"schema": {"type": "string"}, "description": "Where to ask what became of it."}}
    created = {
        "description": "The event is in the log and takes effect once.",
        "headers": {**location, **RATE_HEADERS},
        "content": {"application/json": _json(CREATED_SCHEMA, _CREATED)},
    }
    results = {
        "description": "What became of each event.",
        "headers": RATE_HEADERS,
        "content": {"application/json": _json(RESULTS_SCHEMA, _RESULTS)},
    }

    @routes.post(
        "/events",
        status_code=201,
        summary="Post one event",
        operation_id="post_event",
        responses={**problem_responses(*_COMMON, *_ONE), 201: created},
        openapi_extra={
            "parameters": [_KEY, _IDEMPOTENCY, _ENCODING],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": _json(EVENT_SCHEMA, _EVENT),
                    "application/cloudevents+json": _json(CLOUDEVENT_SCHEMA, _CLOUDEVENT),
                },
            },
        },
    )
    async def post_event() -> None:
        """Native JSON, a CloudEvent in the structured mode, or one in the binary mode (attributes in `ce-` headers, any body)."""

    @routes.post(
        "/events/batch",
        status_code=200,
        summary="Post many events",
        operation_id="post_batch",
        responses={**problem_responses(*_COMMON, problems.INVALID_REQUEST), 200: results},
        openapi_extra={
            "parameters": [_KEY, _ENCODING],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": _json(_many(EVENT_SCHEMA), [_EVENT]),
                    "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"type":"order.paid","payload":{"order":17}}\n'},
                    "application/cloudevents-batch+json": _json(_many(CLOUDEVENT_SCHEMA), [_CLOUDEVENT]),
                },
            },
        },
    )
    async def post_batch() -> None:
        """Up to 1,000 events and 5 MB. Each has an answer of its own; one that is refused disturbs no other."""

    return routes


def _many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": ITEMS_MAX, "items": schema}


_RESULTS: Final[dict[str, Any]] = {
    "appended": 1,
    "refused": 1,
    "results": [
        {"index": 0, "status": 201, "event": _CREATED},
        {
            "index": 1,
            "status": 409,
            "problem": {
                "type": problems.DUPLICATE.type,
                "title": problems.DUPLICATE.title,
                "status": 409,
                "detail": f"This event is {_EXAMPLE_ID} already; nothing was added. Do not send it again.",
                "id": _EXAMPLE_ID,
                "idempotency_window_s": _WINDOW_S,
                "request_id": "req_01a20b40-2613-7e81-8b4f-01a3759c2793",
            },
        },
    ],
}
