"""What OpenAPI shows of the operator API: schemas of its answers and examples of them; what it takes is described from its own types."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from access import api_keys
from access.keys import SCOPES
from access.openapi import INTEGER, PRINTABLE, TEXT, TIME, Responses, Schema, answered, header, many, nullable, record, record_of, sent
from access.operator_bodies import NewKey, NewOrganization, OrganizationChange, Rotation
from access.organizations import PLANS
from schemas import ids
from schemas.events import MODES

_ORGANIZATION: Final[dict[str, Any]] = {
    "id": "org_01a20b40-1000-7000-8000-000000000001", "name": "Acme", "plan": "pro", "rate_limit_per_minute": None, "suspended": False,
    "encryption": False,
    "retention_days": None,
}  # fmt: skip
_KEY: Final[dict[str, Any]] = {
    "id": "key_01a20b40-1000-7000-8000-000000000003", "organization": _ORGANIZATION["id"], "mode": "live", "name": "shop",
    "prefix": "zap_live_3Kd", "scopes": ["events:write"], "state": "active", "created_at": "2026-11-24T02:31:23.155Z",
    "expires_at": None, "last_used_at": "2026-11-24T09:12:00.020Z", "revoked_at": None, "rotated_from": None, "rotated_to": None,
}  # fmt: skip
_SHOWN_ONCE: Final = "zap_live_3Kd… (64 characters, shown this once)"
_REVOKED: Final[dict[str, Any]] = {**_KEY, "state": "revoked", "revoked_at": "2026-11-25T08:00:00.000Z"}
_ENTRY: Final[dict[str, Any]] = {
    "id": 41, "at": "2026-11-24T02:31:23.155Z", "actor": "operator:opr_01a20b40-1000-7000-8000-000000000009",
    "action": "organization.updated", "organization": _ORGANIZATION["id"], "target": _ORGANIZATION["id"],
    "detail": {"before": {"plan": "free"}, "after": {"plan": "pro"}},
}  # fmt: skip

_EFFECTIVE: Final[Schema] = {
    "type": "string",
    "enum": ["now", "within 5 s"],
    "description": "When every API process has seen the change.",
}
_ORGANIZATION_MEMBERS: Final[dict[str, Schema]] = {
    "id": {"type": "string", "pattern": ids.ORGANIZATION_ID_PATTERN},
    "name": TEXT,
    "plan": {"type": "string", "enum": list(PLANS)},
    "rate_limit_per_minute": {"type": ["integer", "null"], "description": "null: the plan's."},
    "suspended": {"type": "boolean"},
    "encryption": {"type": "boolean", "description": "Whether events that come from now on are encrypted."},
    "retention_days": {"type": ["integer", "null"], "description": "How long events stay readable. 0: for ever; null: the plan's."},
}
_KEY_MEMBERS: Final[dict[str, Schema]] = {
    "id": {"type": "string", "pattern": ids.API_KEY_ID_PATTERN},
    "organization": {"type": "string", "pattern": ids.ORGANIZATION_ID_PATTERN},
    "mode": {"type": "string", "enum": list(MODES)},
    "name": TEXT,
    "prefix": {"type": "string", "description": "The first characters, by which people know it."},
    "scopes": many({"type": "string", "enum": list(SCOPES)}),
    "state": {"type": "string", "enum": ["active", "expiring", "expired", "revoked"]},
    "created_at": TIME,
    "expires_at": nullable(TIME),
    "last_used_at": nullable(TIME),
    "revoked_at": nullable(TIME),
    "rotated_from": nullable(TEXT),
    "rotated_to": nullable(TEXT),
}
_SECRET: Final[Schema] = {"type": "string", "description": "The key itself, shown this once."}
_ORGANIZATION_SCHEMA: Final[Schema] = record_of("Organization", _ORGANIZATION_MEMBERS)
_KEY_SCHEMA: Final[Schema] = record_of("Key", _KEY_MEMBERS)
_NEW_KEY_SCHEMA: Final[Schema] = record_of("CreatedKey", {**_KEY_MEMBERS, "key": _SECRET})
_NEXT: Final[Schema] = {"type": ["string", "null"], "description": "The next `after`."}
_ENTRY_SCHEMA: Final[Schema] = record(
    "AuditEntry",
    id=INTEGER,
    at=TIME,
    actor=TEXT,
    action=TEXT,
    organization=nullable(TEXT),
    target=TEXT,
    detail={"type": "object", "description": "What was changed: `before` and `after` where something was there before."},
)


def _at(path: str) -> dict[str, Any]:
    return {"Location": header({"type": "string", "format": "uri-reference"}, "Where it can be read.", path)}


ORGANIZATION_MADE: Final[Responses] = answered(
    201, "Created.", _ORGANIZATION_SCHEMA, headers=_at(f"/operator/organizations/{_ORGANIZATION['id']}"), made=_ORGANIZATION
)
ORGANIZATION: Final[Responses] = answered(200, "The organization.", _ORGANIZATION_SCHEMA, found=_ORGANIZATION)
ORGANIZATIONS: Final[Responses] = answered(
    200, "A page.", record("Organizations", organizations=many(_ORGANIZATION_SCHEMA), next_after=_NEXT),
    last_page={"organizations": [_ORGANIZATION], "next_after": None},
)  # fmt: skip
ORGANIZATION_CHANGED: Final[Responses] = answered(
    200, "As it is now.", record_of("ChangedOrganization", {**_ORGANIZATION_MEMBERS, "effective": _EFFECTIVE}),
    changed={**_ORGANIZATION, "effective": "now"},
)  # fmt: skip
KEY_MADE: Final[Responses] = answered(
    201, "Created.", _NEW_KEY_SCHEMA, headers=_at(f"/operator/keys/{_KEY['id']}"), made={**_KEY, "last_used_at": None, "key": _SHOWN_ONCE}
)
KEYS: Final[Responses] = answered(
    200, "A page.", record("Keys", keys=many(_KEY_SCHEMA), next_after=_NEXT), last_page={"keys": [_KEY], "next_after": None}
)
KEY: Final[Responses] = answered(200, "The key, never its text.", _KEY_SCHEMA, found=_KEY)
KEY_REVOKED: Final[Responses] = answered(
    200, "Revoked.", record_of("RevokedKey", {**_KEY_MEMBERS, "effective": _EFFECTIVE}), revoked={**_REVOKED, "effective": "now"}
)
KEY_ROTATED: Final[Responses] = answered(
    201, "The new key, shown this once, and the old one.",
    record("RotatedKey", new=_NEW_KEY_SCHEMA, old=_KEY_SCHEMA, effective=_EFFECTIVE),
    headers=_at(f"/operator/keys/{_KEY['id']}"),
    rotated={
        "new": {**_KEY, "last_used_at": None, "key": _SHOWN_ONCE, "rotated_from": "key_01a20b40-1000-7000-8000-000000000002"},
        "old": {**_KEY, "id": "key_01a20b40-1000-7000-8000-000000000002", "state": "expiring", "expires_at": "2026-11-25T02:31:23.155Z",
                "rotated_to": _KEY["id"]},
        "effective": "now",
    },
)  # fmt: skip
AUDIT: Final[Responses] = answered(
    200, "A page, newest first.",
    record("AuditLog", entries=many(_ENTRY_SCHEMA), next_before={"type": ["integer", "null"], "description": "The next `before`."}),
    last_page={"entries": [_ENTRY], "next_before": None},
)  # fmt: skip


def taken(kind: type[msgspec.Struct], **examples: Any) -> dict[str, Any]:
    """OpenAPI's `requestBody` for a type."""
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]
    if "name" in schema["properties"]:
        schema["properties"]["name"]["pattern"] = PRINTABLE
    if "expires_at" in schema["properties"]:  # one of them at most
        schema["not"] = {
            "required": ["expires_at", "expires_in_s"],
            "properties": {"expires_at": {"type": "string"}, "expires_in_s": {"type": "integer"}},
        }
    return sent({**schema, "title": kind.__name__}, **examples)


TAKES_ORGANIZATION: Final = taken(NewOrganization, on_a_plan={"name": "Acme", "plan": "pro"})
TAKES_CHANGE: Final = taken(
    OrganizationChange,
    another_plan={"plan": "enterprise", "rate_limit_per_minute": None},
    suspended={"suspended": True},
    thirty_days={"retention_days": 30},
)
TAKES_KEY: Final = taken(NewKey, for_ninety_days={"name": "shop", "scopes": ["events:write"], "mode": "live", "expires_in_s": 7_776_000})
TAKES_ROTATION: Final = taken(Rotation, for_a_day={"overlap_s": api_keys.OVERLAP_S_DEFAULT})
