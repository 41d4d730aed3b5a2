"""The published contract: what FastAPI knows of its routes, completed with every problem, header and example, as one OpenAPI 3.1 document.

Stable: the same program gives the same document, whatever its settings, so that a file of it can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from access.openapi import DESCRIBED, EXACT, PROBLEM_SCHEMA, PROBLEMS, RATE_HEADERS, TEXT, header
from schemas import problems
from schemas.problem_examples import REQUEST_ID, example
from schemas.problems import CONTENT_TYPE, REGISTRY, Problem

_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete"})
_LOCATED: Final = "/events/evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_HEADERS: Final[Mapping[str, tuple[dict[str, Any], str, str]]] = {
    "Retry-After": ({"type": "string", "pattern": "^[0-9]+$"}, "Seconds after which to send the request again.", "2"),
    "Location": ({"type": "string", "format": "uri-reference"}, "The event that is there already.", _LOCATED),
    "WWW-Authenticate": (TEXT, "How to say who asks.", "ApiKey"),
    "Allow": (TEXT, "The methods there are.", "GET, HEAD"),
}
#: Problem → headers it always has.
_HEADERS_OF: Final[Mapping[Problem, tuple[str, ...]]] = {
    problems.MISSING_KEY: ("WWW-Authenticate",),
    problems.INVALID_KEY: ("WWW-Authenticate",),
    problems.MISSING_OPERATOR_TOKEN: ("WWW-Authenticate",),
    problems.INVALID_OPERATOR_TOKEN: ("WWW-Authenticate",),
    problems.METHOD_NOT_ALLOWED: ("Allow",),
    problems.DUPLICATE: ("Location",),
    problems.KEY_REUSED: ("Location",),
    problems.IN_FLIGHT: ("Retry-After",),
    problems.RATE_LIMITED: ("Retry-After",),
    problems.NOT_APPENDED: ("Retry-After",),
    problems.UNKNOWN_OUTCOME: ("Retry-After",),
    problems.OVERLOADED: ("Retry-After",),
    problems.UNAVAILABLE: ("Retry-After",),
}
_REQUEST_ID: Final = header(TEXT, "The request's name in logs: yours if you sent a harmless one, else a new one.", REQUEST_ID)
#: Whatever the route: the server's own refusals, before any route is asked.
_EVERYWHERE: Final = (
    problems.MALFORMED_REQUEST, problems.REQUEST_TIMEOUT, problems.URI_TOO_LONG, problems.HEADERS_TOO_LARGE, problems.INTERNAL,
    problems.OVERLOADED,
)  # fmt: skip
#: Where an event was posted these say that it was not appended; the names of their examples there end so.
_TELLS_OF_EVENTS: Final = (problems.OVERLOADED, problems.UNAVAILABLE)
_OF_EVENT: Final = ".event"
_ALWAYS_ANSWERED: Final = "/health"

DESCRIPTION: Final = """\
Post events once, for good; read them in an inbox or receive them as signed webhooks.

**Who asks.** An organization's key goes into `X-API-Key`, an operator's token into `Authorization: Bearer`. Live and test keys see data of
their own.

**Errors** are problem documents (RFC 9457, `application/problem+json`) with a stable `type`, a `detail` that says what to do and a
`request_id`. A 503 about an event says in `outcome` whether it may be in the log. A path without the method asked for is 405 with
`Allow`; an unknown path is 404. HEAD is answered wherever GET is.

**Limits.** A payload has 1 to 262,144 bytes, a batch up to 1,000 events and 5 MB, a head 16 KiB. What counts against a quota carries
`RateLimit-Policy` and `RateLimit`.

**Browsers.** Pages of the origins named in `TRIGGERS_API__CORS_ORIGINS` may call the API. Every answer carries
`X-Content-Type-Options: nosniff`, `Referrer-Policy: no-referrer`, `Cache-Control: no-store` and a content security policy that allows
nothing, unless the route says otherwise.

Pages per task are in `docs/` of the repository.
"""
_TAGS: Final = [
    {"name": "events", "description": "Posting: one event or many, in native JSON or as CloudEvents."},
    {"name": "inbox", "description": "Reading in log order, acknowledging, asking what became of an event."},
    {"name": "event types", "description": "The catalogue of types with the schemas their payloads must match."},
    {"name": "endpoints", "description": "Where webhooks go: registered, changed, switched, their secrets rotated, their attempts read."},
    {"name": "operators", "description": "Organizations, keys and the audit log, for operators' tokens."},
    {"name": "about", "description": "What this is and whether it can serve."},
]


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document. Raises `ValueError` where two different schemas have one name."""
    made: dict[str, Any] = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    used: set[str] = set()
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                used |= _complete(path, operation)
    elsewhere = {"NoSuchPath": problems.NOT_FOUND, "MethodNotAllowed": problems.METHOD_NOT_ALLOWED}
    responses = {name: _problem_answer([problem]) for name, problem in elsewhere.items()}
    used |= {problem.slug for problem in elsewhere.values()}
    components: dict[str, Any] = {}
    shared = {"paths": made["paths"], "responses": responses}
    _share_headers(shared, components.setdefault("headers", {}))
    shared = _exactly(shared)
    made["paths"] = _share_schemas(shared["paths"], components.setdefault("schemas", {}))
    components["responses"] = _share_schemas(shared["responses"], components["schemas"])
    components["examples"] = _examples(used)
    components["securitySchemes"] = {
        **made.get("components", {}).get("securitySchemes", {}),
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "64 characters: `zap_live_…` or `zap_test_…`."},
    }
    made["components"] = components
    return made


def text(made: dict[str, Any]) -> str:
    """The document as it is checked in: pretty, sorted, with an end of line."""
    return msgspec.json.format(msgspec.json.encode(made, order="sorted"), indent=1).decode() + "\n"


def _complete(path: str, operation: dict[str, Any]) -> set[str]:
    """Parameters without FastAPI's decoration, every problem an operation can have; the slugs of these."""
    bounded = False
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = schema = _plain(parameter["schema"])
        schema.pop("description", None)
        if schema.pop(DESCRIBED, False):
            continue
        bounded = bounded or parameter["in"] == "query" or (parameter["in"] == "path" and "pattern" in schema)
    responses = operation["responses"]
    if any("HTTPValidationError" in str(content) for content in responses.get("422", {}).get("content", {}).values()):
        del responses["422"]  # FastAPI's own; here a parameter that is not valid is a 400
    everywhere = [problem for problem in _EVERYWHERE if problem is not problems.OVERLOADED or not path.startswith(_ALWAYS_ANSWERED)]
    for problem in [*([problems.INVALID_PARAMETER] if bounded else []), *everywhere]:
        entry = responses.setdefault(str(problem.status), {"description": "", PROBLEMS: []})
        if problem.slug not in entry.setdefault(PROBLEMS, []):
            entry[PROBLEMS].append(problem.slug)
    counted = any(set(RATE_HEADERS) <= set(response.get("headers", ())) for response in responses.values())
    used: set[str] = set()
    for status, response in responses.items():
        if slugs := response.pop(PROBLEMS, None):
            used |= set(slugs)
            answer = _problem_answer([REGISTRY[slug] for slug in slugs], counted=counted)
            if "content" in response:  # a good answer's own document under the same status, as readiness has it
                answer["content"] = {**response["content"], **answer["content"]}
                answer["description"] = f"{response['description']}; or: {answer['description']}"
            responses[status] = answer
        responses[status].setdefault("headers", {})["X-Request-Id"] = _REQUEST_ID
    operation["responses"] = dict(sorted(responses.items()))
    return used


def _problem_answer(found: list[Problem], *, counted: bool = False) -> dict[str, Any]:
    """One status: its problems with the headers they have, required where all have them."""
    names = [name for name in _HEADERS if any(name in _HEADERS_OF.get(problem, ()) for problem in found)]
    headers = {name: header(*_HEADERS[name], required=all(name in _HEADERS_OF.get(problem, ()) for problem in found)) for name in names}
    if counted:
        headers |= {
            name: {**one, "required": False, "description": f"{one['description']} Where the request was counted."}
            for name, one in RATE_HEADERS.items()
        }
    of_event = {problem.slug: _OF_EVENT if counted and problem in _TELLS_OF_EVENTS else "" for problem in found}
    examples = {slug: {"$ref": f"#/components/examples/{slug}{suffix}"} for slug, suffix in of_event.items()}
    return {
        "description": "; ".join(f"`{problem.slug}`: {problem.title}" for problem in found),
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": PROBLEM_SCHEMA, "examples": examples}},
    }


def _examples(used: set[str]) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {slug: {"summary": REGISTRY[slug].title, "value": example(REGISTRY[slug])} for slug in used}
    for problem in _TELLS_OF_EVENTS:
        one = made[problem.slug]
        made[problem.slug + _OF_EVENT] = one
        made[problem.slug] = {**one, "value": {name: value for name, value in one["value"].items() if name != "outcome"}}
    return made


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without its title and without null, which no parameter can be."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    return {**choices[0], **rest} if len(choices) == 1 else {name: value for name, value in schema.items() if name != "title"}


def _exactly(value: Any) -> Any:
    """Examples in place of their texts."""
    if isinstance(value, dict):
        if EXACT in value:
            return msgspec.json.decode(value[EXACT])
        return {name: _exactly(member) for name, member in value.items()}
    return [_exactly(item) for item in value] if isinstance(value, list) else value


def _share_headers(value: Any, shared: dict[str, Any]) -> None:
    """Each header once among the components; a reference wherever it is sent."""
    if isinstance(value, dict):
        headers = value.get("headers")
        if isinstance(headers, dict) and isinstance(value.get("description"), str):  # a response: a schema's member is no text
            for name, one in headers.items():
                if "$ref" not in one:
                    headers[name] = {"$ref": f"#/components/headers/{_shared_name(name, one, shared)}"}
        for name, member in value.items():
            if name != "headers":
                _share_headers(member, shared)
    elif isinstance(value, list):
        for item in value:
            _share_headers(item, shared)


def _shared_name(name: str, one: dict[str, Any], shared: dict[str, Any]) -> str:
    for number in range(1, 10):
        key = f"{name}{'' if number == 1 else f'.{number}'}"
        if shared.setdefault(key, one) == one:
            return key
    raise ValueError(f"too many forms of the header {name}")


def _share_schemas(value: Any, shared: dict[str, Any]) -> Any:
    """Each schema that has a title once among the components; a reference wherever it stands."""
    if isinstance(value, list):
        return [_share_schemas(item, shared) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name: member if name in ("examples", "example", "value") else _share_schemas(member, shared) for name, member in value.items()}
    title = value.get("title")
    if not isinstance(title, str) or "type" not in value:
        return made
    if shared.setdefault(title, made) != made:
        raise ValueError(f"there are two schemas called {title}")
    return {"$ref": f"#/components/schemas/{title}"}


def operations(made: Mapping[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of a document."""
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, method, operation
