"""Deliveries that an integrator asks for, over HTTP: a test, one event again, all that an endpoint missed. Each answers 202 with the round
under which its attempts are found."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Meta, Raw, Struct
from psycopg import Connection

from access import endpoints
from access.bodies import JSON, decoded, read_of_types
from access.changes import Owner as EndpointOwner
from access.endpoint_routes import BODY_BYTES_MAX, MANAGE, READERS, EndpointPath, has_body
from access.endpoints import Endpoint
from access.http import context_of
from access.integrator_desk import Authenticate, IntegratorDesk
from access.openapi import KEY_PROBLEMS, KEY_SECURITY, problem_responses
from access.times import Time, iso, unix_ms
from projections import redelivery_docs
from projections.queries import Owner
from projections.redeliveries import TIME_MAX_MS, Redeliveries, check_test_type, recovery, redelivery
from runtime.clock import Clock
from runtime.postgres import ThreadPool
from schemas import problems
from schemas.codec import HEADER_REQUEST_ID, HEADER_TRACEPARENT
from schemas.deliveries import Cause
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, TEST_TYPE
from schemas.ids import OrganizationId, RoundId
from schemas.problems import ProblemError

_NOT_POSSIBLE: Final = (problems.NOT_FOUND, problems.NOT_POSSIBLE)
_BODY: Final = (problems.MALFORMED_JSON, problems.INVALID_REQUEST, problems.UNSUPPORTED_MEDIA_TYPE, problems.BODY_TOO_LARGE)
_LOG: Final = (problems.NOT_APPENDED, problems.UNKNOWN_OUTCOME)


class Test(Struct, frozen=True, forbid_unknown_fields=True):
    """`payload` goes as it is sent; without one, a small one of ours."""

    type: Annotated[str, Meta(pattern=EVENT_TYPE_PATTERN, max_length=EVENT_TYPE_CHARS_MAX)] = TEST_TYPE
    payload: Raw = Raw(b"")


class RetryOne(Struct, frozen=True, forbid_unknown_fields=True):
    event_id: Annotated[str, Meta(max_length=64)]


class Recover(Struct, frozen=True, forbid_unknown_fields=True):
    """Times are those at which events were received, from `since` until before `until` (now)."""

    since: Time
    until: Time | None = None


def router(redeliveries: Redeliveries, pool: ThreadPool, authenticate: Authenticate, clock: Clock) -> APIRouter:
    """The routes. `pool` is open while they serve."""
    routes = APIRouter(tags=["endpoints"])
    desk = IntegratorDesk(pool, authenticate, clock, what="endpoints", manage=MANAGE, readers=READERS)

    async def note(
        who: tuple[EndpointOwner, str], endpoint: str, what: str, detail: dict[str, Any], *, disabled_too: bool = False
    ) -> Endpoint:
        owner, actor = who

        def ask(connection: Connection[Any]) -> Endpoint:
            return endpoints.ask(connection, owner, endpoint, what, detail, disabled_too=disabled_too, actor=actor)

        return await desk.run(ask, change=True)

    def headers(request: Request) -> list[tuple[str, bytes | None]]:
        context = context_of(request.headers.raw, clock)
        return [(HEADER_REQUEST_ID, context.request_id.encode()), (HEADER_TRACEPARENT, context.trace.traceparent.encode())]

    @routes.post(
        "/endpoints/{endpoint}/test",
        operation_id="test_endpoint",
        summary="Post a test event to an endpoint, also to one that is disabled",
        description="One attempt, signed as every other and marked `X-Triggers-Delivery: test`, whatever the endpoint filters. Its event "
        "is in no inbox. It counts for nothing: neither rate, nor circuit breaker, nor the failures that disable an endpoint.",
        status_code=202,
        responses={**redelivery_docs.TESTED, **problem_responses(problems.NOT_FOUND, *_BODY, *_LOG, *KEY_PROBLEMS)},
        openapi_extra={**KEY_SECURITY, **redelivery_docs.TEST_REQUEST},
    )
    async def test(request: Request, endpoint: EndpointPath) -> Response:
        who = await desk.manager(request)
        given = decoded(await read_of_types(request, (JSON,), BODY_BYTES_MAX), Test) if has_body(request) else Test()
        try:
            check_test_type(given.type)
        except ValueError as error:
            raise ProblemError(problems.INVALID_REQUEST, f"{str(error).capitalize()}.") from None
        event = redeliveries.test_event(_owner(who[0]), given.type, bytes(given.payload))
        round_id = redeliveries.new_round()
        found = await note(who, endpoint, "test", {"round": round_id, "event": event.id, "type": event.type}, disabled_too=True)
        await redeliveries.append(redelivery(round_id, "test", found.id, event), headers(request))
        return _accepted(desk, request, found, round_id, "test", {"event_id": event.id})

    @routes.post(
        "/endpoints/{endpoint}/retry",
        operation_id="retry_delivery",
        summary="Deliver one event of the inbox to an endpoint again",
        description="Also one that was delivered, or that the endpoint was never sent. A round of its own, with the endpoint's whole "
        "schedule; the same `webhook-id` and body, marked `X-Triggers-Delivery: retry`. Asking twice delivers twice. "
        "**Out of order at an endpoint with `fifo`**: it comes at once, between events that are later than it.",
        status_code=202,
        responses={**redelivery_docs.RETRIED, **problem_responses(*_NOT_POSSIBLE, *_BODY, *_LOG, *KEY_PROBLEMS)},
        openapi_extra={**KEY_SECURITY, **redelivery_docs.RETRY_REQUEST},
    )
    async def retry(request: Request, endpoint: EndpointPath) -> Response:
        who = await desk.manager(request)
        wanted = decoded(await read_of_types(request, (JSON,), BODY_BYTES_MAX), RetryOne)
        await desk.run(lambda connection: endpoints.get(connection, who[0], endpoint))
        event = await redeliveries.event(_owner(who[0]), wanted.event_id)
        round_id = redeliveries.new_round()
        found = await note(who, endpoint, "retry", {"round": round_id, "event": event.id})
        await redeliveries.append(redelivery(round_id, "retry", found.id, event), headers(request))
        return _accepted(desk, request, found, round_id, "retry", {"event_id": event.id})

    @routes.post(
        "/endpoints/{endpoint}/recover",
        operation_id="recover_endpoint",
        summary="Deliver all that an endpoint missed in a time",
        description="Of the events received in it: those that ended as dead letters, and those that were held while the endpoint was "
        "disabled, but none that it took since and none that is still on its way. Marked `X-Triggers-Delivery: recover`, with the same "
        "`webhook-id` and body; a few at a time, behind what is new. Asking twice delivers nothing twice. **Out of order at an endpoint "
        "with `fifo`**: several at once, between events that are later than they.",
        status_code=202,
        responses={**redelivery_docs.RECOVERED, **problem_responses(*_NOT_POSSIBLE, *_BODY, *_LOG, *KEY_PROBLEMS)},
        openapi_extra={**KEY_SECURITY, **redelivery_docs.RECOVER_REQUEST},
    )
    async def recover(request: Request, endpoint: EndpointPath) -> Response:
        who = await desk.manager(request)
        wanted = decoded(await read_of_types(request, (JSON,), BODY_BYTES_MAX), Recover)
        since_ms = min(max(unix_ms(wanted.since), 0), TIME_MAX_MS)
        until_ms = clock.now_ms() if wanted.until is None else min(max(unix_ms(wanted.until), 0), TIME_MAX_MS)
        if since_ms >= until_ms:
            raise ProblemError(problems.INVALID_REQUEST, "`since` must be before `until`, and before now.")
        await desk.run(lambda connection: endpoints.get(connection, who[0], endpoint))
        owner, round_id = _owner(who[0]), redeliveries.new_round()
        missed = await redeliveries.missed(owner, endpoint, since_ms=since_ms, until_ms=until_ms)
        span = {"since": iso(since_ms), "until": iso(until_ms)}
        found = await note(who, endpoint, "recovery", {"round": round_id, **span, "deliveries": missed.deliveries})
        await redeliveries.append(recovery(round_id, "recover", owner, found.id, since_ms=since_ms, until_ms=until_ms), headers(request))
        told = {**span, "deliveries": missed.deliveries, "more": missed.more}
        return _accepted(desk, request, found, round_id, "recover", told)

    return routes


def _owner(owner: EndpointOwner) -> Owner:
    return Owner(OrganizationId(owner.organization), owner.mode)


def _accepted(desk: IntegratorDesk, request: Request, found: Endpoint, round_id: RoundId, cause: Cause, more: dict[str, Any]) -> Response:
    where = f"/endpoints/{found.id}/attempts?round={round_id}"
    return desk.answer(request, 202, {"round": round_id, "cause": cause, "endpoint_id": found.id, **more}, {"Location": where})
