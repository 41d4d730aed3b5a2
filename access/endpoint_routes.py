"""Webhook endpoints over HTTP: `/endpoints`, for the integrators whose they are. Their attempts are read in `projections`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from psycopg import Connection

from access import endpoint_docs, endpoint_secrets, endpoints
from access.bodies import JSON, MERGE_PATCH, decoded, read_of_types
from access.changes import Owner
from access.endpoint_bodies import Rotation, Rules
from access.endpoints import Endpoint
from access.integrator_desk import Authenticate, IntegratorDesk
from access.openapi import KEY_PROBLEMS, KEY_SECURITY, problem_responses
from access.secrets import Keyring
from runtime.clock import Clock
from runtime.postgres import ThreadPool
from schemas import ids, problems
from schemas.problems import ProblemError

EndpointPath = Annotated[str, Path(description="`ep_…`, from the answer that made it or from the list.")]

MANAGE: Final = "endpoints:manage"
#: Any of these may read: who reads the inbox sees what became of deliveries, too.
READERS: Final = (MANAGE, "inbox:read")
#: Headers and event types of the largest size, and the JSON around them.
BODY_BYTES_MAX: Final = 131_072
#: What PostgreSQL can compare with an id.
_ASCII: Final = "^[ -~]*$"
_BODY: Final = (
    problems.MALFORMED_JSON,
    problems.INVALID_REQUEST,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.BODY_TOO_LARGE,
)


#: What an endpoint missed, as a member of the answer that enables it. Folds know; they are read elsewhere.
MissedBy = Callable[[Owner, str], Awaitable[dict[str, Any] | None]]


def router(pool: ThreadPool, authenticate: Authenticate, keyring: Keyring, rules: Rules, clock: Clock, missed_by: MissedBy) -> APIRouter:
    """The routes. `pool` is open while they serve."""
    routes = APIRouter(tags=["endpoints"])
    desk = IntegratorDesk(pool, authenticate, clock, what="endpoints", manage=MANAGE, readers=READERS)
    _reads(routes, desk)
    _changes(routes, desk, rules)
    _switches(routes, desk, missed_by)
    _secrets(routes, desk, keyring, rules, clock)
    return routes


def _reads(routes: APIRouter, desk: IntegratorDesk) -> None:
    @routes.get(
        "/endpoints",
        operation_id="list_endpoints",
        summary="List endpoints, oldest first",
        responses={**endpoint_docs.PAGE, **problem_responses(problems.INVALID_PARAMETER, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def list_endpoints(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=endpoints.PAGE_MAX, description="Endpoints of a page.")] = endpoints.PAGE_MAX,
        after: Annotated[
            str, Query(max_length=64, pattern=_ASCII, description="The last id of the page before: `next` of its answer.")
        ] = "",
    ) -> Response:
        owner, _ = await desk.reader(request)
        found = await desk.run(lambda connection: endpoints.page(connection, owner, after=after, limit=limit + 1))
        more = len(found) > limit
        document = {"endpoints": [one.shown() for one in found[:limit]], "next": found[limit - 1].id if more else None}
        return desk.answer(request, 200, document)

    @routes.get(
        "/endpoints/{endpoint}",
        operation_id="get_endpoint",
        summary="One endpoint, and which secrets sign",
        description="Values of headers are shown to keys with `endpoints:manage` only. Secrets never are.",
        responses={**endpoint_docs.SHOWN, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def get_endpoint(request: Request, endpoint: EndpointPath) -> Response:
        owner, manages = await desk.reader(request)

        def show(connection: Connection[Any]) -> dict[str, Any]:
            return _shown(connection, endpoints.get(connection, owner, endpoint), header_values=manages)

        return desk.answer(request, 200, await desk.run(show))


def _changes(routes: APIRouter, desk: IntegratorDesk, rules: Rules) -> None:
    @routes.patch(
        "/endpoints/{endpoint}",
        operation_id="change_endpoint",
        summary="Change an endpoint",
        description="JSON Merge Patch (RFC 7396): what is left out stays, null is the default again, headers are merged by name. "
        "Holds for events from now on, and for retries within a second.",
        responses={
            **endpoint_docs.CHANGED,
            **problem_responses(problems.NOT_FOUND, *_BODY, *KEY_PROBLEMS),
        },
        openapi_extra={**KEY_SECURITY, **endpoint_docs.CHANGE_REQUEST},
    )
    async def change_endpoint(request: Request, endpoint: EndpointPath) -> Response:
        owner, actor = await desk.manager(request)
        patch = decoded(await read_of_types(request, (JSON, MERGE_PATCH), BODY_BYTES_MAX), dict[str, Any])

        def update(connection: Connection[Any]) -> dict[str, Any]:
            return _shown(connection, endpoints.update(connection, owner, endpoint, patch, rules=rules, actor=actor))

        return desk.answer(request, 200, await desk.run(update, change=True))

    @routes.delete(
        "/endpoints/{endpoint}",
        operation_id="delete_endpoint",
        summary="Delete an endpoint; its attempts can still be read",
        status_code=204,
        responses={**endpoint_docs.DELETED, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def delete_endpoint(request: Request, endpoint: EndpointPath) -> Response:
        owner, actor = await desk.manager(request)
        await desk.run(lambda connection: endpoints.delete(connection, owner, endpoint, actor=actor), change=True)
        return Response(status_code=204, headers=desk.headers(request))


def _switches(routes: APIRouter, desk: IntegratorDesk, missed_by: MissedBy) -> None:
    @routes.post(
        "/endpoints/{endpoint}/enable",
        operation_id="enable_endpoint",
        summary="Deliver to an endpoint again",
        description="What it missed is told, and is delivered only when it is asked for: `POST /endpoints/{endpoint}/recover`.",
        responses={**endpoint_docs.ENABLED, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def enable_endpoint(request: Request, endpoint: EndpointPath) -> Response:
        owner, actor = await desk.manager(request)

        def enable(connection: Connection[Any]) -> dict[str, Any]:
            return _shown(connection, endpoints.enable(connection, owner, endpoint, actor=actor))

        enabled = await desk.run(enable, change=True)
        return desk.answer(request, 200, {**enabled, "missed": await missed_by(owner, endpoint)})

    @routes.post(
        "/endpoints/{endpoint}/disable",
        operation_id="disable_endpoint",
        summary="Deliver nothing to an endpoint for now",
        description="What comes meanwhile is held: see `GET /endpoints/{endpoint}/held`.",
        responses={**endpoint_docs.DISABLED, **problem_responses(problems.NOT_FOUND, *KEY_PROBLEMS)},
        openapi_extra=KEY_SECURITY,
    )
    async def disable_endpoint(request: Request, endpoint: EndpointPath) -> Response:
        owner, actor = await desk.manager(request)

        def disable(connection: Connection[Any]) -> dict[str, Any]:
            return _shown(connection, endpoints.disable(connection, owner, endpoint, reason="owner", actor=actor))

        return desk.answer(request, 200, await desk.run(disable, change=True))


def _secrets(routes: APIRouter, desk: IntegratorDesk, keyring: Keyring, rules: Rules, clock: Clock) -> None:
    """The two calls whose answers hold a secret, once."""

    @routes.post(
        "/endpoints",
        operation_id="create_endpoint",
        summary="Register an endpoint; its signing secret is shown this once",
        status_code=201,
        responses={**endpoint_docs.MADE, **problem_responses(*_BODY, *KEY_PROBLEMS)},
        openapi_extra={**KEY_SECURITY, **endpoint_docs.NEW_REQUEST},
    )
    async def add_endpoint(request: Request) -> Response:
        owner, actor = await desk.manager(request)
        members = decoded(await read_of_types(request, (JSON,), BODY_BYTES_MAX), dict[str, Any])
        given = members.pop("secret", None)
        if given is not None and not isinstance(given, str):
            raise ProblemError(problems.INVALID_REQUEST, "Expected `str | null` - at `$.secret`.")
        endpoint = ids.endpoint_id(clock.now_ms(), os.urandom(ids.RANDOM_BYTES))

        def add(connection: Connection[Any]) -> dict[str, Any]:
            made, text = endpoints.add(connection, keyring, endpoint, owner, members, secret=_secret(given), rules=rules, actor=actor)
            return {**_shown(connection, made), "secret": text}

        return desk.answer(request, 201, await desk.run(add, change=True), {"Location": f"/endpoints/{endpoint}"})

    @routes.post(
        "/endpoints/{endpoint}/rotate-secret",
        operation_id="rotate_endpoint_secret",
        summary="A new signing secret, shown this once; the old one signs too for a while",
        description="Without a body: a secret is made, and the old one goes on signing for 24 hours. With `overlap_s` 0 all old ones end.",
        responses={
            **endpoint_docs.ROTATED,
            **problem_responses(problems.NOT_FOUND, problems.NOT_POSSIBLE, *_BODY, *KEY_PROBLEMS),
        },
        openapi_extra={**KEY_SECURITY, **endpoint_docs.ROTATE_REQUEST},
    )
    async def rotate_secret(request: Request, endpoint: EndpointPath) -> Response:
        owner, actor = await desk.manager(request)
        rotation = decoded(await read_of_types(request, (JSON,), BODY_BYTES_MAX), Rotation) if has_body(request) else Rotation()

        def rotate(connection: Connection[Any]) -> dict[str, Any]:
            found, text = endpoints.rotate_secret(
                connection, keyring, owner, endpoint, secret=_secret(rotation.secret), given=rotation.secret is not None,
                overlap_s=rotation.overlap_s, actor=actor,
            )  # fmt: skip
            return {**_shown(connection, found), "secret": text}

        return desk.answer(request, 200, await desk.run(rotate, change=True))


def has_body(request: Request) -> bool:
    """RFC 9112 section 6.3: a request has a body if it says how long it is."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _secret(given: str | None) -> bytes:
    """The secret that was brought along, else a new one. Raises `ValueError`."""
    return os.urandom(endpoint_secrets.SECRET_BYTES) if given is None else endpoint_secrets.parse_secret(given)


def _shown(connection: Connection[Any], found: Endpoint, *, header_values: bool = True) -> dict[str, Any]:
    secrets = [one.shown() for one in endpoints.secrets_of(connection, found)]
    return {**found.shown(header_values=header_values), "secrets": secrets}
