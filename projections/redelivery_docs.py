"""What OpenAPI shows of deliveries that are asked for."""

from __future__ import annotations

from typing import Any, Final

from access.endpoint_docs import ENDPOINT_ID, EXAMPLE_ID
from access.openapi import INTEGER, TIME, Responses, Schema, answered, header, record_of, shown
from schemas import ids
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, TEST_TYPE

_ROUND_ID: Final = "rnd_01a20b40-4000-7000-8000-000000000009"
_EVENT_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_EVENT: Final[Schema] = {"type": "string", "pattern": ids.EVENT_ID_PATTERN}
_ASKED: Final[dict[str, Schema]] = {
    "round": {"type": "string", "pattern": ids.ROUND_ID_PATTERN, "description": "Under which its attempts are found."},
    "endpoint_id": ENDPOINT_ID,
}
_WHERE: Final = f"/endpoints/{EXAMPLE_ID}/attempts?round={_ROUND_ID}"
_HEADERS: Final = {
    "Location": header(
        {"type": "string", "format": "uri-reference"},
        "Where its attempts can be read.",
        _WHERE,
    )
}


def _asked(title: str, cause: str, **members: Schema) -> Schema:
    return record_of(title, {**_ASKED, "cause": {"type": "string", "const": cause}, **members})


def _example(cause: str, **members: Any) -> dict[str, Any]:
    return {"round": _ROUND_ID, "cause": cause, "endpoint_id": EXAMPLE_ID, **members}


def _request(
    title: str, required: list[str], properties: dict[str, Schema], /, *, optional: bool = False, **examples: Any
) -> dict[str, Any]:
    schema = {"title": title, "type": "object", "additionalProperties": False, "required": required, "properties": properties}
    return {"requestBody": {"required": not optional, "content": {"application/json": shown(schema, **examples)}}}


TESTED: Final[Responses] = answered(
    202, "It will be posted in a moment.", _asked("TestAsked", "test", event_id=_EVENT), headers=_HEADERS,
    asked=_example("test", event_id=_EVENT_ID),
)  # fmt: skip
RETRIED: Final[Responses] = answered(
    202,
    "It will be delivered.",
    _asked("RetryAsked", "retry", event_id=_EVENT),
    headers=_HEADERS,
    asked=_example("retry", event_id=_EVENT_ID),
)
RECOVERED: Final[Responses] = answered(
    202, "They will be delivered.",
    _asked(
        "RecoveryAsked", "recover", since=TIME, until=TIME,
        deliveries={**INTEGER, "minimum": 0, "description": "How many there were when it was asked for."},
        more={"type": "boolean", "description": "There may be more: counting ended early. All are delivered."},
    ),
    headers=_HEADERS,
    asked=_example("recover", since="2026-11-24T02:00:00.000Z", until="2026-11-25T09:12:00.020Z", deliveries=12, more=False),
)  # fmt: skip
TEST_REQUEST: Final[dict[str, Any]] = _request(
    "TestEndpoint", [],
    {
        "type": {"type": "string", "pattern": EVENT_TYPE_PATTERN, "maxLength": EVENT_TYPE_CHARS_MAX, "default": TEST_TYPE},
        "payload": {"description": "Any JSON; posted as it is sent."},
    },
    optional=True, of_a_type={"type": "order.paid", "payload": {"order": 17}},
)  # fmt: skip
RETRY_REQUEST: Final[dict[str, Any]] = _request("RetryDelivery", ["event_id"], {"event_id": _EVENT}, one={"event_id": _EVENT_ID})
RECOVER_REQUEST: Final[dict[str, Any]] = _request(
    "RecoverEndpoint",
    ["since"],
    {"since": TIME, "until": {**TIME, "description": "Now, if left out."}},
    since_a_time={"since": "2026-11-24T02:00:00Z"},
)
