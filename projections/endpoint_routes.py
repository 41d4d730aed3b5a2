"""What became of deliveries to one endpoint, over HTTP. The endpoint itself is `access.endpoint_routes`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from access.endpoint_routes import READERS
from access.http import context_of
from access.integrator_desk import KEY_PARAMETER, READ_PROBLEMS, Authenticate, answer_of, any_of
from access.openapi import problem_responses
from projections.endpoint_attempts import NEWEST, PAGE_MAX, Outcome
from projections.queries import Owner
from projections.reading import Reading
from runtime.clock import Clock
from schemas import problems

_PAGE: Final[dict[str, Any]] = {
    "attempts": [
        {
            "event_id": "evt_01a20b40-2613-7e81-8b4f-01a3759c2793", "attempt": 1, "outcome": "failed",
            "started_at": "2026-11-24T02:31:23.171Z", "duration_ms": 41, "status": 503, "error": "status",
            "response_base64": "dHJ5IGxhdGVy", "next": "retry", "next_at": "2026-11-24T02:31:53.212Z", "dead_reason": None,
        }
    ],
    "next": 4711,
}  # fmt: skip


def router(reading: Reading, authenticate: Authenticate, clock: Clock) -> APIRouter:
    """The routes, over what they read from and who they trust."""
    routes = APIRouter(tags=["endpoints"])

    @routes.get(
        "/endpoints/{endpoint}/attempts",
        summary="Attempts at an endpoint, newest first; also at one that was deleted",
        responses={
            **answer_of(200, "A page", _PAGE),
            **problem_responses(problems.NOT_FOUND, problems.INVALID_PARAMETER, *READ_PROBLEMS),
        },
        openapi_extra=KEY_PARAMETER,
    )
    async def attempts(
        request: Request,
        endpoint: str,
        outcome: Annotated[Outcome | None, Query(description="Only these.")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        before: Annotated[int, Query(ge=0, le=NEWEST, description="`next` of the page before.")] = NEWEST,
    ) -> Response:
        principal = await any_of(authenticate, request, READERS)
        owner = Owner(principal.organization, principal.mode)
        document = await reading.attempts(owner, endpoint, outcome, before=before, limit=limit)
        headers = {"X-Request-Id": context_of(request.headers.raw, clock).request_id, "Cache-Control": "no-store"}
        return Response(msgspec.json.encode(document), media_type="application/json", headers=headers)

    return routes
