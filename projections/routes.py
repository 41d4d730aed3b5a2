"""The read side over HTTP: `GET /inbox`, `POST /inbox/ack`, `GET /events/{id}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from access.auth import Principal
from access.http import Context, context_of
from access.openapi import KEY_PROBLEMS, KEY_SECURITY, problem_responses
from projections import docs
from projections.docs import ACK_IDS_MAX
from projections.queries import Owner, Status
from projections.reading import Reading
from runtime.clock import Clock
from schemas import codec, problems
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN
from schemas.problems import INVALID_REQUEST, MALFORMED_JSON, UNSUPPORTED_MEDIA_TYPE, ProblemError

EventIdPath = Annotated[str, Path(description="`evt_…`, from the answer to a post or from the inbox.")]
#: `(request, scope)` → who is asking, or a problem.
Authenticate = Callable[[Request, str], Awaitable[Principal]]

_ACK_BODY_BYTES_MAX: Final = 16_384


class _AckBody(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=ACK_IDS_MAX)]


_ack_decoder = msgspec.json.Decoder(_AckBody)


def router(reading: Reading, authenticate: Authenticate, clock: Clock) -> APIRouter:
    """The routes, over what they read from and who they trust."""
    routes = APIRouter(tags=["inbox"])

    @routes.get(
        "/inbox",
        summary="Read the inbox in log order",
        operation_id="read_inbox",
        responses={**docs.PAGE, **problem_responses(problems.INVALID_CURSOR, problems.INVALID_PARAMETER, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def inbox(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000, description="Events of a page.")] = 100,
        cursor: Annotated[str | None, Query(max_length=128, description="A `next_cursor`, or `now` for what comes from here on.")] = None,
        status: Annotated[Literal["unacked", "acked", "all"], Query(description=docs.WHICH)] = "unacked",
        type: Annotated[
            str | None, Query(max_length=EVENT_TYPE_CHARS_MAX, pattern=EVENT_TYPE_PATTERN, description="Only events of this type.")
        ] = None,
        wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for an event when there is none.")] = 0,
    ) -> Response:
        context, owner = await _caller(request, "inbox:read")
        filtered: Status = status
        page = await reading.page(owner, status=filtered, event_type=type, cursor=cursor, limit=limit, wait_s=wait)
        return _json(page, context)

    @routes.post(
        "/inbox/ack",
        summary="Acknowledge events",
        operation_id="acknowledge",
        responses={
            **docs.ACKNOWLEDGED,
            **problem_responses(
                MALFORMED_JSON,
                UNSUPPORTED_MEDIA_TYPE,
                INVALID_REQUEST,
                problems.BODY_TOO_LARGE,
                problems.NOT_APPENDED,
                problems.UNKNOWN_OUTCOME,
                *KEY_PROBLEMS,
            ),
        },
        openapi_extra={**KEY_SECURITY, **docs.ACK_REQUEST},
    )
    async def ack(request: Request) -> Response:
        context, owner = await _caller(request, "inbox:ack")
        ids = _ids(await _body(request))
        headers: list[tuple[str, bytes | None]] = [
            (codec.HEADER_REQUEST_ID, context.request_id.encode()),
            (codec.HEADER_TRACEPARENT, context.trace.traceparent.encode()),
        ]
        return _json(await reading.ack(owner, ids, headers), context)

    @routes.get(
        "/events/{event_id}",
        summary="What became of an event",
        operation_id="get_event",
        responses={**docs.EVENT, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def event(request: Request, event_id: EventIdPath) -> Response:
        context, owner = await _caller(request, "inbox:read")
        return _json(await reading.event(owner, event_id), context)

    async def _caller(request: Request, scope: str) -> tuple[Context, Owner]:
        principal = await authenticate(request, scope)
        return context_of(request.headers.raw, clock), Owner(principal.organization, principal.mode)

    return routes


def _json(document: dict[str, Any], context: Context) -> Response:
    headers = {"X-Request-Id": context.request_id, "Cache-Control": "no-store"}
    return Response(msgspec.json.encode(document), media_type="application/json", headers=headers)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the ids with `Content-Type: application/json`.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _ACK_BODY_BYTES_MAX:
            raise ProblemError(problems.BODY_TOO_LARGE, f"At most {ACK_IDS_MAX} ids are taken at once.", headers={"Connection": "close"})
    return body


def _ids(body: bytes) -> list[str]:
    try:
        return _ack_decoder.decode(body).ids
    except msgspec.ValidationError as error:
        raise ProblemError(INVALID_REQUEST, f'{error}. Send {{"ids": ["evt_…"]}} with 1 to {ACK_IDS_MAX} ids.') from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None
