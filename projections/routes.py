"""The read side over HTTP: `GET /inbox`, `POST /inbox/ack`, `GET /events/{id}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from access.auth import Principal
from access.http import Context, context_of, problem_responses
from projections.queries import Owner, Status
from projections.reading import Reading
from runtime.clock import Clock
from schemas import codec, problems
from schemas.problems import INVALID_REQUEST, MALFORMED_JSON, UNSUPPORTED_MEDIA_TYPE, ProblemError

#: `(request, scope)` → who is asking, or a problem.
Authenticate = Callable[[Request, str], Awaitable[Principal]]

_ACK_BODY_BYTES_MAX: Final = 16_384
_ACK_IDS_MAX: Final = 100
_EXAMPLE_ID: Final = "evt_01a20b40-2613-7e81-8b4f-01a3759c2793"
_AUTH_PROBLEMS: Final = (
    problems.MISSING_KEY,
    problems.INVALID_KEY,
    problems.FORBIDDEN,
    problems.ORGANIZATION_SUSPENDED,
    problems.RATE_LIMITED,
    problems.UNAVAILABLE,
)


class _AckBody(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=_ACK_IDS_MAX)]


_ack_decoder = msgspec.json.Decoder(_AckBody)


def router(reading: Reading, authenticate: Authenticate, clock: Clock) -> APIRouter:
    """The routes, over what they read from and who they trust."""
    routes = APIRouter(tags=["inbox"])

    @routes.get(
        "/inbox",
        summary="Read the inbox in log order",
        responses={
            **_ok("A page", _PAGE_EXAMPLE),
            **problem_responses(problems.INVALID_CURSOR, problems.INVALID_PARAMETER, *_AUTH_PROBLEMS),
        },
        openapi_extra=_KEY_PARAMETER,
    )
    async def inbox(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=128, description="A `next_cursor`, or `now` for what comes from here on.")] = None,
        status: Literal["unacked", "acked", "all"] = "unacked",
        type: Annotated[str | None, Query(max_length=256, description="Only events of this type.")] = None,
        wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for an event when there is none.")] = 0,
    ) -> Response:
        context, owner = await _caller(request, "inbox:read")
        filtered: Status = status
        page = await reading.page(owner, status=filtered, event_type=type, cursor=cursor, limit=limit, wait_s=wait)
        return _json(page, context)

    @routes.post(
        "/inbox/ack",
        summary="Acknowledge events",
        responses={
            **_ok("What became of each id", _ACK_EXAMPLE),
            **problem_responses(
                MALFORMED_JSON, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, problems.NOT_APPENDED, problems.UNKNOWN_OUTCOME, *_AUTH_PROBLEMS
            ),
        },
        openapi_extra={**_KEY_PARAMETER, "requestBody": _ACK_REQUEST},
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
        responses={**_ok("The event", _EVENT_EXAMPLE), **problem_responses(problems.NOT_FOUND, *_AUTH_PROBLEMS)},
        openapi_extra=_KEY_PARAMETER,
    )
    async def event(request: Request, event_id: str) -> Response:
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
            raise ProblemError(problems.BODY_TOO_LARGE, f"At most {_ACK_IDS_MAX} ids are taken at once.", headers={"Connection": "close"})
    return body


def _ids(body: bytes) -> list[str]:
    try:
        return _ack_decoder.decode(body).ids
    except msgspec.ValidationError as error:
        raise ProblemError(INVALID_REQUEST, f'{error}. Send {{"ids": ["evt_…"]}} with 1 to {_ACK_IDS_MAX} ids.') from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None


def _ok(description: str, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}}


_KEY_PARAMETER: Final[dict[str, Any]] = {
    "parameters": [{"name": "X-API-Key", "in": "header", "required": True, "schema": {"type": "string"}}]
}
_PAGE_EXAMPLE: Final[dict[str, Any]] = {
    "events": [
        {
            "id": _EXAMPLE_ID, "type": "order.paid", "subject": "order/17", "occurred_at": "2026-11-24T02:31:23Z",
            "received_at": "2026-11-24T02:31:23.155Z", "content_type": "application/json", "status": "delivered", "ack": None,
            "position": {"generation": 1, "partition": 2, "offset": 41}, "payload": {"order": 17, "amount": 20.5},
        }
    ],
    "next_cursor": "AQAAAAEAAAACAAAAAAAAACm2…", "has_more": False, "truncated": None, "next_poll_ms": 1000,
}  # fmt: skip
_ACK_EXAMPLE: Final[dict[str, Any]] = {"acknowledged": 1, "failed": 0, "results": [{"id": _EXAMPLE_ID, "status": "acknowledged"}]}
_ACK_REQUEST: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object", "required": ["ids"], "additionalProperties": False,
                "properties": {"ids": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": _ACK_IDS_MAX}},
            },
            "example": {"ids": [_EXAMPLE_ID]},
        }
    },
}  # fmt: skip
_EVENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": _EXAMPLE_ID, "status": "accepted", "type": "order.paid", "subject": "order/17", "occurred_at": "2026-11-24T02:31:23Z",
    "received_at": "2026-11-24T02:31:23.155Z", "payload_bytes": 29, "payload_sha256": "9f…",
    "ingested": {"partition": 2, "offset": 41, "appended_at": "2026-11-24T02:31:23.158Z"},
    "accepted": {"generation": 1, "partition": 2, "offset": 41}, "ack": None,
    "deliveries": [{"endpoint_id": "ep_01a20b40-1000-7000-8000-000000000002", "attempts": [
        {"attempt": 1, "outcome": "delivered", "started_at": "2026-11-24T02:31:23.171Z", "duration_ms": 4, "status": 204, "error": None,
         "worker": "delivery-0", "next": None, "next_at": None, "dead_reason": None}]}],
}  # fmt: skip
