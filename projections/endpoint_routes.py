"""What became of deliveries to one endpoint, over HTTP. The endpoint itself is `access.endpoint_routes`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from access.endpoint_routes import READERS, EndpointPath
from access.http import context_of
from access.integrator_desk import Authenticate, any_of
from access.openapi import KEY_PROBLEMS, KEY_SECURITY, problem_responses
from projections import endpoint_docs
from projections.endpoint_attempts import NEWEST, PAGE_MAX, Outcome
from projections.queries import Owner
from projections.reading import Reading
from runtime.clock import Clock
from schemas import problems
from schemas.ids import ROUND_ID_PATTERN


def router(reading: Reading, authenticate: Authenticate, clock: Clock) -> APIRouter:
    """The routes, over what they read from and who they trust."""
    routes = APIRouter(tags=["endpoints"])

    @routes.get(
        "/endpoints/{endpoint}/attempts",
        operation_id="list_endpoint_attempts",
        summary="Attempts at an endpoint, newest first; also at one that was deleted",
        responses={**endpoint_docs.ATTEMPTS, **problem_responses(problems.NOT_FOUND, problems.INVALID_PARAMETER, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def attempts(
        request: Request,
        endpoint: EndpointPath,
        outcome: Annotated[Outcome | None, Query(description="Only these.")] = None,
        of_round: Annotated[
            str | None, Query(alias="round", pattern=ROUND_ID_PATTERN, description="Only of this round, `rnd_…`, which a call asked for.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Attempts of a page.")] = 50,
        before: Annotated[int, Query(ge=0, le=NEWEST, description="`next` of the page before.")] = NEWEST,
    ) -> Response:
        owner = await reader(request)
        return answer(request, await reading.attempts(owner, endpoint, outcome, round_id=of_round, before=before, limit=limit))

    @routes.get(
        "/endpoints/{endpoint}/held",
        operation_id="get_endpoint_held",
        summary="How many events an endpoint missed while it was disabled; also one that was deleted",
        description="All there ever were. They are in the inbox, and are not posted later by themselves.",
        responses={**endpoint_docs.HELD, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def held(request: Request, endpoint: EndpointPath) -> Response:
        owner = await reader(request)
        return answer(request, await reading.held(owner, endpoint))

    async def reader(request: Request) -> Owner:
        principal = await any_of(authenticate, request, READERS)
        return Owner(principal.organization, principal.mode)

    def answer(request: Request, document: dict[str, Any]) -> Response:
        headers = {"X-Request-Id": context_of(request.headers.raw, clock).request_id, "Cache-Control": "no-store"}
        return Response(msgspec.json.encode(document), media_type="application/json", headers=headers)

    return routes
