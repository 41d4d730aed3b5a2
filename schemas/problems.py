"""The registry of problems: every error an HTTP caller can meet, with its stable type, status and title (RFC 9457).

`detail` is written where the problem is raised and says what to do. Sorted by what the caller can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Prefix of `type`. A URN, because a URL would have to be served for ever to be worth more (RFC 9457 section 3.1.1 allows any URI).
TYPE_PREFIX: Final = "urn:triggers:problem:"
CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem. `slug` completes the type URI and never changes its meaning."""

    slug: str
    status: int
    title: str

    @property
    def type(self) -> str:
        return TYPE_PREFIX + self.slug


# Mend the request, then send it again.
MALFORMED_REQUEST: Final = Problem("malformed-request", 400, "The request is not valid HTTP")
MALFORMED_JSON: Final = Problem("malformed-json", 400, "The body is not valid JSON")
INVALID_BODY: Final = Problem("invalid-body", 400, "The body cannot be decoded")
INVALID_CURSOR: Final = Problem("invalid-cursor", 400, "The cursor is not valid here")
INVALID_HEADER: Final = Problem("invalid-header", 400, "A header is not valid")
INVALID_PARAMETER: Final = Problem("invalid-parameter", 400, "A parameter is not valid")
NOT_FOUND: Final = Problem("not-found", 404, "There is nothing here")
METHOD_NOT_ALLOWED: Final = Problem("method-not-allowed", 405, "The method is not allowed here")
REQUEST_TIMEOUT: Final = Problem("request-timeout", 408, "The request did not arrive in time")
BODY_TOO_LARGE: Final = Problem("body-too-large", 413, "The body is too large")
PAYLOAD_TOO_LARGE: Final = Problem("payload-too-large", 413, "The payload is too large")
URI_TOO_LONG: Final = Problem("uri-too-long", 414, "The request target is too long")
UNSUPPORTED_MEDIA_TYPE: Final = Problem("unsupported-media-type", 415, "The content type or encoding is not supported")
INVALID_EVENT: Final = Problem("invalid-event", 422, "The event is not valid")
INVALID_REQUEST: Final = Problem("invalid-request", 422, "The request is not valid")
SCHEMA_VIOLATION: Final = Problem("schema-violation", 422, "The payload does not match the schema of its type")
HEADERS_TOO_LARGE: Final = Problem("headers-too-large", 431, "The headers are too large")

# Mend the credentials.
MISSING_KEY: Final = Problem("missing-api-key", 401, "An API key is needed")
INVALID_KEY: Final = Problem("invalid-api-key", 401, "The API key is not valid")
FORBIDDEN: Final = Problem("forbidden", 403, "The API key may not do this")
ORGANIZATION_SUSPENDED: Final = Problem("organization-suspended", 403, "The organization is suspended")
MISSING_OPERATOR_TOKEN: Final = Problem("missing-operator-token", 401, "An operator's token is needed")
INVALID_OPERATOR_TOKEN: Final = Problem("invalid-operator-token", 401, "The operator's token is not valid")

# What is there does not allow it; look at it again.
NOT_POSSIBLE: Final = Problem("not-possible", 409, "Its state does not allow this")

# The event is there already; do not send it again.
DUPLICATE: Final = Problem("duplicate-event", 409, "The event was sent before under this key")
IN_FLIGHT: Final = Problem("request-in-flight", 409, "A request with this key is still being worked on")
KEY_REUSED: Final = Problem("idempotency-key-reused", 422, "The idempotency key was used for another event")

# Wait, then send the same request again (with the same idempotency key).
RATE_LIMITED: Final = Problem("quota-exceeded", 429, "Too many requests")
NOT_APPENDED: Final = Problem("not-appended", 503, "The event was not appended")
UNKNOWN_OUTCOME: Final = Problem("outcome-unknown", 503, "It is not known whether the event was appended")
OVERLOADED: Final = Problem("overloaded", 503, "Too much is under way here")
UNAVAILABLE: Final = Problem("unavailable", 503, "A server this answer needs does not respond")

# Ours to mend.
INTERNAL: Final = Problem("internal", 500, "Something went wrong here")

REGISTRY: Final[Mapping[str, Problem]] = {p.slug: p for p in list(globals().values()) if isinstance(p, Problem)}


class ProblemError(Exception):
    """A problem to answer with. `detail` says what to do; `headers` and `members` go into the answer as they are."""

    def __init__(
        self, problem: Problem, detail: str, *, headers: Mapping[str, str] | None = None, members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{problem.slug}: {detail}")
        self.problem = problem
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}
        self.members: Mapping[str, Any] = members or {}

    def document(self, request_id: str) -> dict[str, Any]:
        """The RFC 9457 document, with `outcome` for a 503 about an append (`not_appended` or `unknown`)."""
        return {
            "type": self.problem.type,
            "title": self.problem.title,
            "status": self.problem.status,
            "detail": self.detail,
            **self.members,
            "request_id": request_id,
        }
