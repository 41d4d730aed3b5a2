"""The catalogue of event types over HTTP: `/event-types`. Statements run in a few threads, over few connections: this is no hot path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from access import event_types
from access.changes import UNSET, Unset
from access.compatibility import Warned
from access.event_type_docs import CHANGED, LISTED, MADE, PUT_REQUEST, SHOWN, VERSIONS
from access.event_types import EventType, Version
from access.integrator_desk import Authenticate, IntegratorDesk
from access.openapi import KEY_PROBLEMS, KEY_SECURITY, described, problem_responses
from runtime.clock import Clock
from runtime.postgres import ThreadPool
from schemas import problems
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN
from schemas.problems import ProblemError

#: Text that PostgreSQL can hold.
_TEXT: Final = r"^[^\x00]*$"

NamePath = Annotated[str, Path(description="The type's name, as events carry it.")]
NewNamePath = Annotated[
    str,
    Path(
        description="A name as events carry it.",
        json_schema_extra=described(pattern=EVENT_TYPE_PATTERN, maxLength=EVENT_TYPE_CHARS_MAX),
    ),
]
#: `(revocation version)` → whether the caches of all processes were told (see `access.epoch`).
TellCaches = Callable[[int], bool]

MANAGE: Final = "event_types:manage"
#: Any of these may read: who sends or reads events needs to know what they look like.
_READERS: Final = (MANAGE, "events:write", "inbox:read")
#: A schema of the largest size, its description, and the JSON around both.
BODY_BYTES_MAX: Final = 81_920


class _PutBody(msgspec.Struct, forbid_unknown_fields=True):
    description: str | msgspec.UnsetType = msgspec.UNSET
    schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_put_decoder = msgspec.json.Decoder(_PutBody)


def router(pool: ThreadPool, authenticate: Authenticate, tell_caches: TellCaches, clock: Clock) -> APIRouter:
    """The routes. `pool` is open while they serve."""
    routes = APIRouter(tags=["event types"])
    desk = IntegratorDesk(pool, authenticate, clock, what="event types", manage=MANAGE, readers=_READERS)

    async def told(version: int) -> None:
        """Not being told costs other processes seconds, so the answer does not depend on it."""
        await desk.tell(tell_caches, version)

    @routes.get(
        "/event-types",
        operation_id="list_event_types",
        summary="List event types by name",
        responses={**LISTED, **problem_responses(problems.INVALID_PARAMETER, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=event_types.PAGE_MAX, description="Types of a page.")] = 100,
        after: Annotated[
            str, Query(max_length=256, pattern=_TEXT, description="The last name of the page before: `next` of its answer.")
        ] = "",
    ) -> Response:
        owner, _ = await desk.reader(request)
        page, more = await desk.run(lambda connection: event_types.list_page(connection, owner, after=after, limit=limit))
        document = {"event_types": [_shown(one, schema=False) for one in page], "next": page[-1].type if more else None}
        return desk.answer(request, 200, document)

    @routes.get(
        "/event-types/{event_type}",
        operation_id="get_event_type",
        summary="An event type and the schema its payloads must match",
        responses={**SHOWN, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def shown(request: Request, event_type: NamePath) -> Response:
        owner, _ = await desk.reader(request)
        found = await desk.run(lambda connection: event_types.get(connection, owner, _text(event_type)))
        return desk.answer(request, 200, _shown(found, schema=True))

    @routes.get(
        "/event-types/{event_type}/versions",
        operation_id="list_event_type_versions",
        summary="Every schema the type ever had, newest first",
        responses={
            **VERSIONS,
            **problem_responses(problems.NOT_FOUND, problems.INVALID_PARAMETER, *KEY_PROBLEMS),
        },
        openapi_extra=KEY_SECURITY,
    )
    async def versions(
        request: Request,
        event_type: NamePath,
        limit: Annotated[int, Query(ge=1, le=event_types.VERSIONS_PAGE_MAX, description="Versions of a page.")] = 20,
        before: Annotated[int, Query(ge=1, le=2**31 - 1, description="Versions below this one: `next` of the page before.")] = 2**31 - 1,
    ) -> Response:
        owner, _ = await desk.reader(request)
        found, more = await desk.run(
            lambda connection: event_types.versions(connection, owner, _text(event_type), before=before, limit=limit)
        )
        document = {"type": event_type, "versions": [_version(one) for one in found], "next": found[-1].version if more else None}
        return desk.answer(request, 200, document)

    @routes.put(
        "/event-types/{event_type}",
        operation_id="put_event_type",
        summary="Make or change an event type; its schema is enforced from now on",
        description="What is left out stays as it is; `schema: null` ends the checking of payloads.",
        responses={
            **MADE,
            **CHANGED,
            **problem_responses(
                problems.MALFORMED_JSON,
                problems.UNSUPPORTED_MEDIA_TYPE,
                problems.BODY_TOO_LARGE,
                problems.INVALID_REQUEST,
                *KEY_PROBLEMS,
            ),
        },
        openapi_extra={**KEY_SECURITY, **PUT_REQUEST},
    )
    async def put(request: Request, event_type: NewNamePath) -> Response:
        owner, actor = await desk.manager(request)
        description, schema = _decoded(await _body(request))
        change = await desk.run(
            lambda connection: event_types.put(connection, owner, event_type, description=description, schema=schema, actor=actor),
            change=True,
        )
        document = {**_shown(change.event_type, schema=True), "warnings": [_warning(one) for one in change.warnings]}
        if change.revocation_version is not None:
            await told(change.revocation_version)
        located = {"Location": f"/event-types/{event_type}"} if change.created else {}
        return desk.answer(request, 201 if change.created else 200, document, located)

    @routes.delete(
        "/event-types/{event_type}",
        operation_id="delete_event_type",
        summary="Take an event type out of the catalogue; its events are not checked any more",
        status_code=204,
        responses={
            204: {"description": "It is gone; its schema versions are kept"},
            **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS),
        },
        openapi_extra=KEY_SECURITY,
    )
    async def delete(request: Request, event_type: NamePath) -> Response:
        owner, actor = await desk.manager(request)
        await told(await desk.run(lambda connection: event_types.delete(connection, owner, _text(event_type), actor=actor), change=True))
        return Response(status_code=204, headers=desk.headers(request))

    return routes


def _text(name: str) -> str:
    """A name to look for. What no type can be called is not there, and PostgreSQL is not asked for text that it cannot hold."""
    if "\0" in name:
        raise ProblemError(problems.NOT_FOUND, "No event type can have this name.")
    return name


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, "Send the event type with `Content-Type: application/json`.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise ProblemError(
                problems.BODY_TOO_LARGE,
                f"At most {BODY_BYTES_MAX} bytes are taken. Make the schema smaller.",
                headers={"Connection": "close"},
            )
    return body


def _decoded(body: bytes) -> tuple[str | Unset, bytes | Unset | None]:
    """(description, schema text as sent) of a `PUT`."""
    try:
        str(body, "utf-8")  # the schema is skipped over, not read, by the decoder
        given = _put_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ProblemError(problems.INVALID_REQUEST, f"{error}. Send {{description?, schema?}}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(problems.MALFORMED_JSON, f"The body cannot be read: {error}.") from None
    description = UNSET if given.description is msgspec.UNSET else given.description
    if given.schema is msgspec.UNSET:
        return description, UNSET
    text = bytes(given.schema)
    return description, None if text == b"null" else text


def _shown(event_type: EventType, *, schema: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": event_type.type,
        "description": event_type.description,
        "schema_version": event_type.schema_version,
        "created_at": event_type.created_at,
        "updated_at": event_type.updated_at,
    }
    if schema:
        document["schema"] = None if event_type.schema is None else msgspec.Raw(event_type.schema)
    return document


def _version(version: Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "sha256": version.sha256.hex(),
        "created_at": version.created_at,
        "schema": msgspec.Raw(version.schema),
    }


def _warning(warned: Warned) -> dict[str, str]:
    return warned._asdict()
