"""What OpenAPI shows of `/endpoints`: schemas made from the types that decode, examples that the routes really answer with."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from access.bodies import JSON, MERGE_PATCH
from access.endpoint_bodies import OVERLAP_S_DEFAULT, Configuration, LegacySignature, Rotation
from access.endpoint_secrets import SECRET_BYTES, SECRET_PREFIX, secret_text
from access.event_filters import FILTER_PATTERN
from access.openapi import INTEGER, PRINTABLE, TEXT, TIME, Responses, Schema, answered, header, many, nullable, record, record_of, shown
from schemas import ids
from schemas.events import EVENT_TYPE_CHARS_MAX, MODES

EXAMPLE_ID: Final = "ep_01a20b40-1000-7000-8000-000000000002"
ENDPOINT_ID: Final[Schema] = {"type": "string", "pattern": ids.ENDPOINT_ID_PATTERN}
_SECRET_PATTERN: Final = f"^{SECRET_PREFIX}[A-Za-z0-9+/]+={{0,2}}$"
_DISABLED_REASONS: Final = ["owner", "operator", "gone", "failing", None]


def _schema(kind: type[Struct]) -> Schema:
    """JSON Schema with its parts written where they are used: a `$ref` would point outside of the operation."""
    whole = msgspec.json.schema(kind)

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(whole["$defs"][part["$ref"].rpartition("/")[2]])
        return {name: inlined(value) for name, value in part.items() if name not in ("title", "default")}

    result: Schema = inlined({"$ref": whole["$ref"]})
    return result


def _optional(schema: Schema) -> Schema:
    """`schema`, or null for the default."""
    return schema if {"type": "null"} in schema.get("anyOf", ()) else nullable(schema)


#: What an answer has of each member. Whatever was taken is shown in this form.
_MEMBERS: Final[dict[str, Schema]] = _schema(Configuration)["properties"]
_LEGACY: Final[Schema] = {**_schema(LegacySignature), "title": "LegacySignature"}
_MEMBERS["legacy_signature"] = {**nullable(_LEGACY), "description": "A second signature, for receivers of another sender."}
_MEMBERS["description"] |= {"pattern": PRINTABLE, "description": "For people: one line of printable characters."}
_MEMBERS["event_types"]["anyOf"][0]["items"] |= {"pattern": FILTER_PATTERN, "maxLength": EVENT_TYPE_CHARS_MAX}
del _MEMBERS["headers"]
_HEADERS: Final[Schema] = _schema(Configuration)["properties"]["headers"]

_GIVEN_HEADERS: Final[Schema] = nullable({**_HEADERS, "additionalProperties": {"type": ["string", "null"]}})
_GIVEN_MEMBERS: Final[dict[str, Schema]] = {
    **{name: schema if name == "url" else _optional(schema) for name, schema in _MEMBERS.items()},
    "headers": {**_GIVEN_HEADERS, "description": "Sent along with every event. Merged by name; null takes one away."},
}
_SECRET: Final[Schema] = {
    "type": ["string", "null"], "pattern": _SECRET_PATTERN, "description": "One of your own: base64 of 24 to 64 bytes. Else one is made.",
}  # fmt: skip
_SHOWN_SECRET: Final[Schema] = {"type": "string", "pattern": _SECRET_PATTERN, "description": "Signs from now on. Shown this once."}
_COMMON: Final[dict[str, Schema]] = {
    "id": ENDPOINT_ID,
    "organization": {"type": "string", "pattern": ids.ORGANIZATION_ID_PATTERN},
    "mode": {"type": "string", "enum": list(MODES)},
    **_MEMBERS,
    "header_names": many(TEXT),
    "enabled": {"type": "boolean"},
    "disabled_reason": {
        "type": ["string", "null"], "enum": _DISABLED_REASONS,
        "description": "gone: it answered 410. failing: without a success for days. owner, operator: somebody disabled it.",
    },
    "disabled_at": nullable(TIME),
    "failing_since": {**nullable(TIME), "description": "The first failure after the last success."},
    "created_at": TIME,
    "updated_at": TIME,
    "blocked_event_id": {
        "type": ["string", "null"], "pattern": ids.EVENT_ID_PATTERN,
        "description": "With fifo_block: the event it waits for, whose schedule is used up.",
    },
    "blocked_since": nullable(TIME),
}  # fmt: skip
_SECRETS: Final[Schema] = {
    **many(record("SigningSecret", number={"type": "integer", "minimum": 1}, created_at=TIME, expires_at=nullable(TIME))),
    "description": "Those that sign now, newest first. What they are is never shown again.",
}
_WHOLE: Final[dict[str, Schema]] = {
    **_COMMON, "headers": {**_HEADERS, "description": "Only for keys with `endpoints:manage`."}, "secrets": _SECRETS,
}  # fmt: skip
_ENDPOINT: Final[Schema] = record_of("Endpoint", _WHOLE, ["headers"])
_IN_A_LIST: Final[Schema] = record_of("ListedEndpoint", _COMMON)
_WITH_SECRET: Final[Schema] = record_of("EndpointWithSecret", {**_WHOLE, "secret": _SHOWN_SECRET})

_GIVEN: Final[dict[str, Any]] = {
    "url": "https://shop.example/webhooks", "description": "Orders of the shop", "event_types": ["order.*", "refund.made"],
    "headers": {"X-Tenant": "17"}, "schedule": "standard", "deadline_s": 10,
    "legacy_signature": {"header": "X-Hub-Signature-256", "scheme": "sha256-hex-body"},
}  # fmt: skip
_LISTED: Final[dict[str, Any]] = {
    "id": EXAMPLE_ID, "organization": "org_01a20b40-1000-7000-8000-000000000001", "mode": "live", "url": _GIVEN["url"],
    "description": _GIVEN["description"], "event_types": _GIVEN["event_types"], "rate_per_minute": None, "concurrency": None,
    "schedule": "standard", "schedule_s": None, "deadline_s": 10.0, "legacy_signature": _GIVEN["legacy_signature"], "fifo": False,
    "fifo_block": False, "header_names": ["X-Tenant"], "enabled": True, "disabled_reason": None, "disabled_at": None,
    "failing_since": None, "created_at": "2026-11-24T02:31:23.155Z", "updated_at": "2026-11-24T02:31:23.155Z",
    "blocked_event_id": None, "blocked_since": None,
}  # fmt: skip
_FOR_READERS: Final[dict[str, Any]] = {
    **_LISTED, "secrets": [{"number": 1, "created_at": "2026-11-24T02:31:23.155Z", "expires_at": None}],
}  # fmt: skip
_SHOWN: Final[dict[str, Any]] = {**_FOR_READERS, "headers": {"X-Tenant": "17"}}
_DISABLED: Final[dict[str, Any]] = {
    **_SHOWN, "enabled": False, "disabled_reason": "owner", "disabled_at": "2026-11-25T09:12:00.020Z",
    "updated_at": "2026-11-25T09:12:00.020Z",
}  # fmt: skip
_CHANGED: Final[dict[str, Any]] = {
    **_SHOWN, "event_types": None, "headers": {"X-Shop": "17"}, "header_names": ["X-Shop"], "schedule": "custom",
    "schedule_s": [5.0, 60.0, 600.0], "updated_at": "2026-11-25T09:12:00.020Z",
}  # fmt: skip
_ONE_SECRET: Final = secret_text(bytes(range(SECRET_BYTES)))
_ROTATED: Final[dict[str, Any]] = {
    **_SHOWN,
    "secret": _ONE_SECRET,
    "secrets": [
        {"number": 2, "created_at": "2026-11-25T09:12:00.020Z", "expires_at": None},
        {"number": 1, "created_at": "2026-11-24T02:31:23.155Z", "expires_at": "2026-11-26T09:12:00.020Z"},
    ],
}

PAGE: Final[Responses] = answered(
    200, "A page, oldest first.",
    record("Endpoints", endpoints=many(_IN_A_LIST), next={**nullable(ENDPOINT_ID), "description": "The next `after`."}),
    last_page={"endpoints": [_LISTED], "next": None},
)  # fmt: skip
SHOWN: Final[Responses] = answered(200, "The endpoint.", _ENDPOINT, for_a_manager=_SHOWN, for_a_reader=_FOR_READERS)
CHANGED: Final[Responses] = answered(200, "As it is now.", _ENDPOINT, changed=_CHANGED)
_MISSED: Final[Schema] = nullable(
    record(
        "MissedDeliveries",
        deliveries={**INTEGER, "minimum": 1, "description": "Held while it was disabled, or dead letters; not delivered since."},
        more={"type": "boolean", "description": "There may be more: counting ended early."},
        since={**TIME, "description": "When the first of them was received: `since` of a call to `recover`."},
        recover={"type": "string", "format": "uri-reference", "description": "Where to ask for them."},
    )
)
ENABLED: Final[Responses] = answered(
    200, "As it is now, and what it missed; null: nothing, or it cannot be told right now.",
    record_of("EnabledEndpoint", {**_WHOLE, "missed": _MISSED}, ["headers"]),
    nothing_missed={**_SHOWN, "missed": None},
    some_missed={
        **_SHOWN,
        "missed": {
            "deliveries": 12, "more": False, "since": "2026-11-24T02:31:23.155Z", "recover": f"/endpoints/{EXAMPLE_ID}/recover",
        },
    },
)  # fmt: skip
DISABLED: Final[Responses] = answered(200, "As it is now.", _ENDPOINT, disabled=_DISABLED)
_LOCATED: Final = {
    "Location": header({"type": "string", "format": "uri-reference"}, "Where it can be read and changed.", f"/endpoints/{EXAMPLE_ID}")
}
MADE: Final[Responses] = answered(201, "It was made.", _WITH_SECRET, headers=_LOCATED, made={**_SHOWN, "secret": _ONE_SECRET})
ROTATED: Final[Responses] = answered(200, "The endpoint with its new secret.", _WITH_SECRET, rotated=_ROTATED)
DELETED: Final[Responses] = {204: {"description": "It is gone, and its secrets with it."}}


def _body(types: tuple[str, ...], schema: Schema, *, required: bool = True, **examples: Any) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {one: shown(schema, **examples) for one in types}}}


def _object(title: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    return {
        "title": title, "type": "object", "additionalProperties": False, "properties": properties,
        **({"required": list(required)} if required else {}),
    }  # fmt: skip


#: In a merge patch a member of a member can be left out, too (RFC 7396).
_LEGACY_PATCH: Final[Schema] = _object("ChangeLegacySignature", {name: nullable(one) for name, one in _LEGACY["properties"].items()})
NEW_REQUEST: Final[dict[str, Any]] = _body(
    (JSON,),
    _object("NewEndpoint", {**_GIVEN_MEMBERS, "secret": _SECRET}, ("url",)),
    with_settings=_GIVEN,
    with_defaults={"url": _GIVEN["url"]},
)
CHANGE_REQUEST: Final[dict[str, Any]] = _body(
    (MERGE_PATCH, JSON),
    _object("ChangeEndpoint", {**_GIVEN_MEMBERS, "legacy_signature": nullable(_LEGACY_PATCH)}),
    some_members={"event_types": None, "headers": {"X-Tenant": None, "X-Shop": "17"}, "schedule_s": [5, 60, 600]},
)
ROTATE_REQUEST: Final[dict[str, Any]] = _body(
    (JSON,),
    _object(
        "RotateSecret", {"overlap_s": {**_schema(Rotation)["properties"]["overlap_s"], "default": OVERLAP_S_DEFAULT}, "secret": _SECRET}
    ),
    required=False,
    default_overlap={"overlap_s": OVERLAP_S_DEFAULT},
    a_secret_that_leaked={"overlap_s": 0},
)
