"""What OpenAPI shows of `/event-types`: schemas of the answers and examples of them, kept out of the way of the code."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from access.openapi import INTEGER, PRINTABLE, TEXT, TIME, Responses, Schema, answered, many, nullable, record, record_of, sent

_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["order", "amount"],
    "properties": {"order": {"type": "integer"}, "amount": {"type": "number", "exclusiveMinimum": 0}},
}
_LISTED: Final[dict[str, Any]] = {
    "type": "order.paid", "description": "An order was paid in full", "schema_version": 2,
    "created_at": "2026-11-24T02:31:23.155000Z", "updated_at": "2026-11-25T09:12:00.020000Z",
}  # fmt: skip
_SHOWN: Final[dict[str, Any]] = {**_LISTED, "schema": _SCHEMA}
_UNCHECKED: Final[dict[str, Any]] = {**_LISTED, "schema_version": None, "schema": None}


def _sha256(schema: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()


_VERSIONS: Final[dict[str, Any]] = {
    "type": "order.paid",
    "versions": [
        {"version": 2, "sha256": _sha256(_SCHEMA), "created_at": "2026-11-25T09:12:00.020000Z", "schema": _SCHEMA},
        {"version": 1, "sha256": _sha256({"type": "object"}), "created_at": "2026-11-24T02:31:23.155000Z", "schema": {"type": "object"}},
    ],
    "next": None,
}  # fmt: skip

_COMMON: Final[dict[str, Schema]] = {
    "type": TEXT,
    "description": TEXT,
    "schema_version": {"type": ["integer", "null"], "description": "Of the schema that is enforced; null: payloads are not checked."},
    "created_at": TIME,
    "updated_at": TIME,
}
_ANY_SCHEMA: Final[Schema] = {"type": ["object", "null"], "description": "JSON Schema 2020-12, byte for byte as it was sent."}
_WARNING: Final[Schema] = record("SchemaWarning", pointer=TEXT, change=TEXT)
_EVENT_TYPE: Final[Schema] = record_of("EventType", {**_COMMON, "schema": _ANY_SCHEMA})
_CHANGED: Final[Schema] = record_of(
    "ChangedEventType",
    {
        **_COMMON,
        "schema": _ANY_SCHEMA,
        "warnings": {**many(_WARNING), "description": "Changes by which an event that was valid may be no more."},
    },
)
_VERSION: Final[Schema] = record(
    "SchemaVersion", version=INTEGER, sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"}, created_at=TIME, schema=_ANY_SCHEMA
)
LISTED: Final[Responses] = answered(
    200, "A page, by name.",
    record("EventTypes", event_types=many(record_of("ListedEventType", _COMMON)), next={**nullable(TEXT), "description": "Next `after`."}),
    last_page={"event_types": [_LISTED], "next": None},
)  # fmt: skip
SHOWN: Final[Responses] = answered(200, "The event type.", _EVENT_TYPE, with_a_schema=_SHOWN, without_a_schema=_UNCHECKED)
VERSIONS: Final[Responses] = answered(
    200, "A page, newest first.",
    record("SchemaVersions", type=TEXT, versions=many(_VERSION), next={**nullable(INTEGER), "description": "The next `before`."}),
    last_page=_VERSIONS,
)  # fmt: skip
MADE: Final[Responses] = answered(201, "It was made.", _CHANGED, made={**_SHOWN, "schema_version": 1, "warnings": []})
CHANGED: Final[Responses] = answered(
    200, "It was changed, or was like this already.", _CHANGED,
    changed_with_a_warning={**_SHOWN, "warnings": [{"pointer": "/required", "change": "now required: amount"}]},
)  # fmt: skip
PUT_REQUEST: Final[dict[str, Any]] = sent(
    {
        "title": "PutEventType",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "description": {"type": "string", "maxLength": 1000, "pattern": PRINTABLE, "description": "One line of printable characters."},
            "schema": {
                "type": ["object", "null"],
                "description": "JSON Schema 2020-12, at most 65,536 bytes; kept as sent. null: payloads are not checked.",
            },
        },
    },
    whole={"description": "An order was paid in full", "schema": _SCHEMA},
    unchecked={"schema": None},
)
