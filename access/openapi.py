"""The vocabulary of the published contract: schemas, answers, problems as OpenAPI 3.1 writes them. See `access.openapi_document`.

A schema with a `title` is a component of that name. An example travels as text until the document is put together, because FastAPI drops
members that are null on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from schemas import problems
from schemas.problems import Problem

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

#: Marks of what `access.openapi_document` replaces.
EXACT: Final = "x-exact"
PROBLEMS: Final = "x-problems"
DESCRIBED: Final = "x-described"

TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
#: What `access.texts.one_line` takes, in the categories of Unicode.
PRINTABLE: Final = r"^[ \p{L}\p{M}\p{N}\p{P}\p{S}]*$"
TIME: Final[Schema] = {"type": "string", "format": "date-time"}

#: Security of an operation for organizations.
KEY_SECURITY: Final[dict[str, Any]] = {"security": [{"apiKey": []}]}
#: What a key can be refused with, on every route that asks for one.
KEY_PROBLEMS: Final = (
    problems.INVALID_HEADER, problems.MISSING_KEY, problems.INVALID_KEY, problems.FORBIDDEN, problems.ORGANIZATION_SUSPENDED,
    problems.RATE_LIMITED, problems.UNAVAILABLE,
)  # fmt: skip

PROBLEM_SCHEMA: Final[Schema] = {
    "title": "Problem",
    "description": "RFC 9457. Members beyond the first five come with the problems that have them (docs/errors.md).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Stable: what a program decides by."},
        "title": TEXT,
        "status": INTEGER,
        "detail": {"type": "string", "description": "What to do, for people."},
        "request_id": {"type": "string", "description": "Under which the log knows the request; also `X-Request-Id`."},
        "id": {"type": "string", "description": "The event this one collides with."},
        "idempotency_window_s": {"type": "integer", "description": "For so long the key names that event."},
        "outcome": {"type": "string", "enum": ["not_appended", "unknown"], "description": "With 503: whether the event may be in the log."},
        "reason": {"type": "string", "description": "What is wrong with the JSON, in a word."},
        "field": {"type": "string", "description": "The member that is not valid."},
        "pointer": {"type": "string", "description": "The place in a schema, as a JSON Pointer (RFC 6901)."},
        "schema_version": {"type": "integer", "description": "Of the schema that was not matched."},
        "violations": {
            "type": "array",
            "description": "At most 20 places that do not match, in the order of the payload.",
            "items": {
                "title": "Violation",
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {"pointer": TEXT, "message": TEXT},
            },
        },
    },
}


def record(title: str, /, *, optional: Sequence[str] = (), **members: Schema) -> Schema:
    """An object. All members are always there but those named `optional`."""
    return record_of(title, members, optional)


def record_of(title: str, members: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """As `record`, for members that several have."""
    return {
        "title": title, "type": "object", "required": [name for name in members if name not in optional], "properties": dict(members),
    }  # fmt: skip


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """`schema`, or null."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "title" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def exact(value: Any) -> dict[str, str]:
    """An example's value, every null in it kept."""
    return {EXACT: msgspec.json.encode(value).decode()}


def shown(schema: Schema, /, **examples: Any) -> dict[str, Any]:
    """The content of one media type; examples by name, each a summary made of it."""
    named = {name: {"summary": name.replace("_", " ").capitalize(), "value": exact(value)} for name, value in examples.items()}
    return {"schema": schema, "examples": named}


def answered(
    status: int, description: str, schema: Schema, /, *, headers: Mapping[str, Any] | None = None, links: Any = None, **examples: Any
) -> Responses:
    """`responses` of one good answer in JSON."""
    answer: dict[str, Any] = {"description": description, "content": {"application/json": shown(schema, **examples)}}
    if headers:
        answer["headers"] = dict(headers)
    if links:
        answer["links"] = links
    return {status: answer}


def sent(schema: Schema, /, **examples: Any) -> dict[str, Any]:
    """`requestBody` of one body in JSON, for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": shown(schema, **examples)}}}


def described(**keywords: Any) -> dict[str, Any]:
    """`json_schema_extra` of a parameter whose form the route itself checks, with a problem of its own."""
    return {DESCRIBED: True, **keywords}


def problem_responses(*found: Problem) -> Responses:
    """`responses` for the problems a route can answer with."""
    grouped: Responses = {}
    for problem in found:
        entry = grouped.setdefault(problem.status, {"description": "", PROBLEMS: []})
        if problem.slug not in entry[PROBLEMS]:
            entry[PROBLEMS].append(problem.slug)
    return grouped


def header(schema: Schema, description: str, example: str, *, required: bool = True) -> dict[str, Any]:
    return {"schema": schema, "description": description, "required": required, "example": example}


LOCATION: Final[dict[str, Any]] = {
    "Location": header(
        {"type": "string", "format": "uri-reference"}, "Where it can be read.", "/events/evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
    )
}
#: On every answer to a request that was counted (draft-ietf-httpapi-ratelimit-headers-10).
RATE_HEADERS: Final[dict[str, Any]] = {
    "RateLimit-Policy": header(TEXT, "The quota and its window in seconds.", '"events";q=100;w=60'),
    "RateLimit": header(TEXT, "What is left of the quota, and seconds until it grows.", '"events";r=99;t=60'),
}
