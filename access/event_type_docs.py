"""What OpenAPI shows of `/event-types`: examples that the routes really answer with, kept out of the way of the code."""

from __future__ import annotations

from typing import Any, Final

_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["order", "amount"],
    "properties": {"order": {"type": "integer"}, "amount": {"type": "number", "exclusiveMinimum": 0}},
}
_LISTED: Final[dict[str, Any]] = {
    "type": "order.paid", "description": "An order was paid in full", "schema_version": 2,
    "created_at": "2026-11-24T02:31:23.155000Z", "updated_at": "2026-11-25T09:12:00.020000Z",
}  # fmt: skip

LISTED: Final[dict[str, Any]] = {"event_types": [_LISTED], "next": None}
SHOWN: Final[dict[str, Any]] = {**_LISTED, "schema": _SCHEMA}
CHANGED: Final[dict[str, Any]] = {**SHOWN, "warnings": [{"pointer": "/required", "change": "now required: amount"}]}
VERSIONS: Final[dict[str, Any]] = {
    "type": "order.paid",
    "versions": [
        {"version": 2, "sha256": "9f2c…", "created_at": "2026-11-25T09:12:00.020000Z", "schema": _SCHEMA},
        {"version": 1, "sha256": "1b07…", "created_at": "2026-11-24T02:31:23.155000Z", "schema": {"type": "object"}},
    ],
    "next": None,
}
PUT_REQUEST: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object", "additionalProperties": False,
                "properties": {
                    "description": {"type": "string", "maxLength": 1000},
                    "schema": {"type": ["object", "null"], "description": "JSON Schema 2020-12, at most 65,536 bytes; kept as sent."},
                },
            },
            "example": {"description": "An order was paid in full", "schema": _SCHEMA},
        }
    },
}  # fmt: skip
