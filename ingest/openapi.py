"""What the hot path looks like in OpenAPI. Requests never come through these routes: `ingest.app.Front` takes them first."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter

from access.openapi import (
    INTEGER,
    KEY_PROBLEMS,
    KEY_SECURITY,
    LOCATION,
    PROBLEM_SCHEMA,
    RATE_HEADERS,
    TIME,
    Schema,
    answered,
    many,
    problem_responses,
    record,
    shown,
)
from ingest.formats import ITEMS_MAX
from schemas import ids, problems
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, IDEMPOTENCY_KEY_CHARS_MAX, SUBJECT_CHARS_MAX
from schemas.problem_examples import example

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
_CLOUDEVENT_OF_BYTES: Final[dict[str, Any]] = {
    "specversion": "1.0", "id": "17-label", "source": "https://shop.example/orders", "type": "label.printed",
    "datacontenttype": "image/png", "data_base64": "iVBORw0KGgo=",
}  # fmt: skip
_CREATED: Final[dict[str, Any]] = {
    "id": _EXAMPLE_ID,
    "status": "pending",
    "received_at": _RECEIVED_AT,
    "idempotency_window_s": _WINDOW_S,
}

#: Characters that no text of an event may hold.
_NO_CONTROL: Final = r"^[^\u0000-\u001f\u007f-\u009f]+$"

#: A time in a header, where generators of clients know no format.
_RFC3339: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
#: With its padding (RFC 4648 section 4).
_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
#: A content type whose data is JSON (`ingest.cloudevents.is_json`).
_JSON_TYPE: Final = r"(/|\+)[Jj][Ss][Oo][Nn] *(;|$)"


def _text(chars_max: int, description: str = "", *, null: bool = False) -> Schema:
    described = {"description": description} if description else {}
    kind = ["string", "null"] if null else "string"
    return {"type": kind, "minLength": 1, "maxLength": chars_max, "pattern": _NO_CONTROL, **described}


_TYPE: Final[Schema] = {"type": "string", "maxLength": EVENT_TYPE_CHARS_MAX, "pattern": EVENT_TYPE_PATTERN}
_SUBJECT: Final = _text(SUBJECT_CHARS_MAX, "What the event is about.", null=True)
EVENT_SCHEMA: Final[Schema] = {
    "title": "Event",
    "type": "object",
    "required": ["type", "payload"],
    "additionalProperties": False,
    "properties": {
        "type": _TYPE,
        "payload": {"description": "Any JSON value, at most 262,144 bytes as sent. Kept and delivered byte for byte."},
        "idempotency_key": _text(
            IDEMPOTENCY_KEY_CHARS_MAX, "Names this event for 24 h; the same key again is answered 409 with its id.", null=True
        ),
        "occurred_at": {"type": ["string", "null"], "format": "date-time", "description": "RFC 3339; kept as sent."},
        "subject": _SUBJECT,
    },
}
CLOUDEVENT_SCHEMA: Final[Schema] = {
    "title": "CloudEvent",
    "description": "CloudEvents 1.0 in its JSON format. `source` and `id` are its idempotency key. Extension attributes are kept.",
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": _text(512),
        "source": _text(512),
        "type": _TYPE,
        "subject": _SUBJECT,
        "time": {"type": ["string", "null"], "format": "date-time"},
        "datacontenttype": {
            "type": ["string", "null"],
            "maxLength": 256,
            "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+( *;[ -~]*)?$",
            "description": "application/json where it is left out.",
        },
        "dataschema": _text(16_384, null=True),
        "data": {"description": "Any JSON value; a string where `datacontenttype` is not JSON."},
        "data_base64": {
            "type": "string",
            "contentEncoding": "base64",
            "pattern": _BASE64,
            "description": "Bytes that are no JSON, instead of `data`.",
        },
    },
    "propertyNames": {"pattern": "^([a-z0-9]{1,64}|data_base64)$"},
    "not": {"required": ["data", "data_base64"]},
    "if": {"required": ["datacontenttype"], "properties": {"datacontenttype": {"type": "string", "not": {"pattern": _JSON_TYPE}}}},
    "then": {"properties": {"data": {"type": "string"}}},
    "additionalProperties": {
        "type": ["string", "boolean", "integer", "null"],
        "minLength": 1,
        "maxLength": 16_384,
        "pattern": _NO_CONTROL,
        "minimum": -(2**31) + 1,
        "maximum": 2**31 - 1,
    },
}
CREATED_SCHEMA: Final[Schema] = record(
    "Created",
    optional=["idempotency_window_s"],
    id={"type": "string", "pattern": ids.EVENT_ID_PATTERN},
    status={"type": "string", "enum": ["pending"]},
    received_at=TIME,
    idempotency_window_s={"type": "integer", "description": "With a key: for so long it names this event and no other."},
)
_RESULT: Final[Schema] = record(
    "BatchResult",
    optional=["event", "problem", "retry_after_s"],
    index=INTEGER,
    status={"type": "integer", "description": "What `POST /events` would have answered."},
    event=CREATED_SCHEMA,
    problem=PROBLEM_SCHEMA,
    retry_after_s=INTEGER,
)
RESULTS_SCHEMA: Final[Schema] = record(
    "BatchResults",
    appended=INTEGER,
    refused=INTEGER,
    results={**many(_RESULT), "description": "One for each event, in order."},
)

_COMMON: Final = (
    problems.INVALID_BODY, problems.MALFORMED_JSON, problems.BODY_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE, *KEY_PROBLEMS,
)  # fmt: skip
_ONE: Final = (
    problems.PAYLOAD_TOO_LARGE, problems.DUPLICATE, problems.IN_FLIGHT, problems.INVALID_EVENT, problems.KEY_REUSED,
    problems.SCHEMA_VIOLATION, problems.NOT_APPENDED, problems.UNKNOWN_OUTCOME,
)  # fmt: skip


def _header(name: str, schema: Schema, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


_ENCODING: Final = _header(
    "Content-Encoding",
    {"type": "string", "enum": ["identity", "gzip", "zstd"]},
    "How the body is compressed. Limits hold for what is inflated.",
)
_IDEMPOTENCY: Final = _header(
    "Idempotency-Key",
    {"type": "string", "pattern": r'^([!#-\[\]-~]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$'},
    "Instead of `idempotency_key` in a native event: printable ASCII, bare or in double quotes (an RFC 9651 string).",
)
_BINARY: Final = [
    _header(
        "ce-specversion", {"type": "string", "enum": ["1.0"]}, "CloudEvents binary mode: with this header the body is the event's data."
    ),
    _header("ce-id", _text(512), "CloudEvents binary mode: needed there."),
    _header("ce-source", _text(512), "CloudEvents binary mode: needed there."),
    _header("ce-type", _TYPE, "CloudEvents binary mode: needed there."),
    _header("ce-subject", _text(SUBJECT_CHARS_MAX), "CloudEvents binary mode. So are all other `ce-` headers: extension attributes."),
    _header("ce-time", {"type": "string", "pattern": _RFC3339}, "CloudEvents binary mode."),
]


def router() -> APIRouter:
    """The documented routes."""
    routes = APIRouter(tags=["events"])
    link = {"event": {"operationId": "get_event", "parameters": {"event_id": "$response.body#/id"}, "description": "What became of it."}}
    created = answered(
        201,
        "The event is in the log and takes effect once.",
        CREATED_SCHEMA,
        headers={**LOCATION, **RATE_HEADERS},
        links=link,
        with_a_key=_CREATED,
        without_a_key={name: value for name, value in _CREATED.items() if name != "idempotency_window_s"},
    )
    results = answered(200, "What became of each event.", RESULTS_SCHEMA, headers=RATE_HEADERS, one_appended_and_one_refused=_RESULTS)

    @routes.post(
        "/events",
        status_code=201,
        summary="Post one event",
        operation_id="post_event",
        responses={**problem_responses(*_COMMON, *_ONE), **created},
        openapi_extra={
            **KEY_SECURITY,
            "parameters": [_IDEMPOTENCY, _ENCODING, *_BINARY],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": shown(EVENT_SCHEMA, whole=_EVENT, smallest={"type": "order.paid", "payload": 17}),
                    "application/cloudevents+json": shown(CLOUDEVENT_SCHEMA, data_in_json=_CLOUDEVENT, data_in_bytes=_CLOUDEVENT_OF_BYTES),
                    "application/octet-stream": {
                        "schema": {"type": "string", "format": "binary"},
                        "examples": {"binary_mode": {"summary": "Binary mode, with ce- headers; any media type", "value": "any bytes"}},
                    },
                },
            },
        },
    )
    async def post_event() -> None:
        """Native JSON, a CloudEvent in the structured mode, or one in the binary mode: attributes in `ce-` headers, data in the body,
        which may then be of any media type."""

    @routes.post(
        "/events/batch",
        status_code=200,
        summary="Post many events",
        operation_id="post_batch",
        responses={**problem_responses(*_COMMON, problems.INVALID_REQUEST), **results},
        openapi_extra={
            **KEY_SECURITY,
            "parameters": [_ENCODING],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": shown(_batch(EVENT_SCHEMA), two_events=[_EVENT, {"type": "order.shipped", "payload": None}]),
                    "application/x-ndjson": {
                        "schema": {"type": "string", "pattern": r"[^ \t\r\n]", "description": "An `Event` on each line."},
                        "examples": {"two_lines": {"summary": "Two lines", "value": _LINES}},
                    },
                    "application/cloudevents-batch+json": shown(_batch(CLOUDEVENT_SCHEMA), one_event=[_CLOUDEVENT]),
                },
            },
        },
    )
    async def post_batch() -> None:
        """Up to 1,000 events and 5 MB. Each has an answer of its own; one that is refused disturbs no other."""

    return routes


def _batch(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": ITEMS_MAX, "items": items}


_LINES: Final = '{"type":"order.paid","payload":{"order":17}}\n{"type":"order.paid","payload":{"order":18}}\n'
_RESULTS: Final[dict[str, Any]] = {
    "appended": 1,
    "refused": 1,
    "results": [
        {"index": 0, "status": 201, "event": _CREATED},
        {"index": 1, "status": 409, "problem": example(problems.DUPLICATE)},
    ],
}
