"""One real answer for every problem, for OpenAPI and the docs: what a caller reads when it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas.problems import Problem

REQUEST_ID: Final = "req_01a20b40-2613-7e81-8b4f-01a3759c2793"
_EVENT_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_WINDOW: Final = {"idempotency_window_s": 86_400}

#: Slug → detail and further members.
EXAMPLES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "malformed-json": ("The JSON is not JSON: Expecting value at character 20.", {"reason": "malformed"}),
    "malformed-request": ("There is no Host header. Send exactly one (RFC 9112 section 3.2).", {}),
    "invalid-body": ("The gzip body ends too early. Nothing was appended; send it again.", {}),
    "invalid-cursor": ("The cursor is not one for this organization, mode and filter. Start without one, or use one given for them.", {}),
    "invalid-header": ("There is more than one X-API-Key header. Send exactly one.", {}),
    "invalid-parameter": ("limit: Input should be less than or equal to 1000.", {}),
    "not-found": ("There is no such event. Check the id, and that the key is of the right organization and mode.", {}),
    "method-not-allowed": ("Use one of: POST.", {}),
    "request-timeout": ("The body did not arrive in time; nothing was appended. Send it again.", {}),
    "body-too-large": ("A payload may have 262144 bytes, the whole body 278528. Send a reference to it.", {}),
    "payload-too-large": ("The payload has 262145 bytes, at most 262144 are taken. Send a reference to it.", {}),
    "uri-too-long": ("Path and query may have 8192 bytes together. Send less in them.", {}),
    "unsupported-media-type": (
        "Send one event with `Content-Type: application/json` or `application/cloudevents+json` in UTF-8, or as a CloudEvent in the binary "
        "mode; many go to /events/batch.",
        {},
    ),
    "invalid-event": (
        'The JSON has the member "type" twice in one object; parsers differ in which one they keep.',
        {"reason": "duplicate_key"},
    ),
    "invalid-request": ("A batch has 1 to 1000 events, this one 1001. Nothing of it was appended.", {}),
    "schema-violation": (
        "The payload does not conform to version 2 of the schema of order.paid. Mend it, or change the schema.",
        {"schema_version": 2, "violations": [{"pointer": "/payload/amount", "message": '"20" is not of type "number"'}]},
    ),
    "headers-too-large": ("Path, query and headers may have 16384 bytes together. Send less in them.", {}),
    "missing-api-key": ("Send your API key in the X-API-Key header.", {}),
    "invalid-api-key": ("The API key is not valid. Check it, or ask an operator for a new one.", {}),
    "not-possible": ("The key key_01a20b40-2613-7e81-8b4f-01a3759c2793 is revoked. Make a new one.", {}),
    "missing-operator-token": ("Send your operator token in the Authorization header: Bearer zap_op_….", {}),
    "invalid-operator-token": ("The operator token is not valid. Check it, or have a new one made.", {}),
    "forbidden": ("This API key has no scope events:write. Use a key that has it.", {}),
    "organization-suspended": ("The organization is suspended. Ask an operator.", {}),
    "duplicate-event": (
        f"This event is {_EVENT_ID} already; nothing was added. Do not send it again.",
        {"id": _EVENT_ID, **_WINDOW},
    ),
    "request-in-flight": (
        "Another request with this idempotency key is under way. Ask again in a moment.",
        {"id": _EVENT_ID},
    ),
    "idempotency-key-reused": (
        f"Under this idempotency key {_EVENT_ID} was sent, with another type, subject or payload. Use a new key.",
        {"id": _EVENT_ID, **_WINDOW},
    ),
    "quota-exceeded": ("The quota of 100 events a minute is used up. Send again in 7 s, or ask for a higher plan.", {}),
    "not-appended": ("The log refused it. Send it again in a moment.", {"outcome": "not_appended"}),
    "outcome-unknown": (
        "The log did not confirm in time; the event may be there. Send it again with the same idempotency key.",
        {"outcome": "unknown"},
    ),
    "unavailable": ("The key cannot be checked right now. Try again in a moment.", {"outcome": "not_appended"}),
    "overloaded": ("Too many requests are under way. Send it again in a moment.", {"outcome": "not_appended"}),
    "internal": ("The failure was logged under this request id. Try again with the same idempotency key.", {}),
}


def example(problem: Problem) -> dict[str, Any]:
    """The RFC 9457 document of a problem as a caller gets it."""
    detail, members = EXAMPLES[problem.slug]
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        **members,
        "request_id": REQUEST_ID,
    }
