"""What OpenAPI shows of `/endpoints`: schemas made from the types that decode, examples that the routes really answer with."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from access.bodies import JSON, MERGE_PATCH
from access.endpoint_bodies import OVERLAP_S_DEFAULT, Configuration, Rotation

_ID: Final = "ep_01a20b40-1000-7000-8000-000000000002"
_SHOWN_ONCE: Final = "whsec_… (shown this once)"
_GIVEN: Final[dict[str, Any]] = {
    "url": "https://shop.example/webhooks", "description": "Orders of the shop", "event_types": ["order.*", "refund.made"],
    "headers": {"X-Tenant": "17"}, "schedule": "standard", "deadline_s": 10,
    "legacy_signature": {"header": "X-Hub-Signature-256", "scheme": "sha256-hex-body"},
}  # fmt: skip
LISTED: Final[dict[str, Any]] = {
    "id": _ID, "organization": "org_01a20b40-1000-7000-8000-000000000001", "mode": "live", "url": _GIVEN["url"],
    "description": _GIVEN["description"], "event_types": _GIVEN["event_types"], "rate_per_minute": None, "concurrency": None,
    "schedule": "standard", "schedule_s": None, "deadline_s": 10.0, "legacy_signature": _GIVEN["legacy_signature"], "fifo": False,
    "fifo_block": False, "header_names": ["X-Tenant"], "enabled": True, "disabled_reason": None, "disabled_at": None,
    "failing_since": None, "created_at": "2026-11-24T02:31:23.155Z", "updated_at": "2026-11-24T02:31:23.155Z",
}  # fmt: skip
_SECRETS: Final[dict[str, Any]] = {"secrets": [{"number": 1, "created_at": "2026-11-24T02:31:23.155Z", "expires_at": None}]}
SHOWN: Final[dict[str, Any]] = {**LISTED, "headers": {"X-Tenant": "17"}, **_SECRETS}
DISABLED: Final[dict[str, Any]] = {
    **SHOWN, "enabled": False, "disabled_reason": "owner", "disabled_at": "2026-11-25T09:12:00.020Z",
}  # fmt: skip
MADE: Final[dict[str, Any]] = {**SHOWN, "secret": _SHOWN_ONCE}
ROTATED: Final[dict[str, Any]] = {
    **SHOWN,
    "secret": _SHOWN_ONCE,
    "secrets": [
        {"number": 2, "created_at": "2026-11-25T09:12:00.020Z", "expires_at": None},
        {"number": 1, "created_at": "2026-11-24T02:31:23.155Z", "expires_at": "2026-11-26T09:12:00.020Z"},
    ],
}
PAGE: Final[dict[str, Any]] = {"endpoints": [LISTED], "next": None}


def _schema(kind: type[Struct]) -> dict[str, Any]:
    """JSON Schema with its parts written where they are used: a `$ref` would point outside of the operation."""
    whole = msgspec.json.schema(kind)

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(whole["$defs"][part["$ref"].rpartition("/")[2]])
        return {name: inlined(value) for name, value in part.items() if name != "title"}

    result: dict[str, Any] = inlined({"$ref": whole["$ref"]})
    return result


_CONFIGURATION: Final = _schema(Configuration)
_SECRET: Final[dict[str, Any]] = {"type": "string", "description": "One of your own, `whsec_…`; else one is made."}


def _body(types: tuple[str, ...], schema: dict[str, Any], example: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {one: {"schema": schema, "example": example} for one in types}}}


NEW_BODY: Final = _body((JSON,), {**_CONFIGURATION, "properties": {**_CONFIGURATION["properties"], "secret": _SECRET}}, _GIVEN)
PATCH_BODY: Final = _body(
    (MERGE_PATCH, JSON),
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": "Left out: stays. Null: back to the default."} for name in _CONFIGURATION["properties"]},
    },
    {"event_types": None, "headers": {"X-Tenant": None, "X-Shop": "17"}, "schedule_s": [5, 60, 600]},
)
ROTATE_BODY: Final = _body((JSON,), _schema(Rotation), {"overlap_s": OVERLAP_S_DEFAULT}, required=False)
