"""Replays over HTTP, for operators: counted, started, looked at, paused, resumed, cancelled, made slower or faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import anyio.to_thread
from confluent_kafka import KafkaException
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from psycopg import Connection

from access import replays
from access.bodies import decoded
from access.changes import Owner
from access.http import context_of
from access.openapi import problem_responses
from access.operator_desk import OperatorDesk
from access.operator_routes import BODY_PROBLEMS, Body, actor_of, guarded, json_answer
from access.organizations import NotPossible
from access.replay_bodies import NewReplay, ReplayChange
from access.replays import Replay, Targets, Wanted
from projections import replay_docs
from projections.log_reader import LogError
from projections.redeliveries import Redeliveries
from projections.replays import ask_for, count, resolve
from runtime.clock import Clock
from runtime.kafka import Headers
from runtime.settings import Settings
from runtime.telemetry import log
from schemas import ids, problems
from schemas.codec import HEADER_REQUEST_ID, HEADER_TRACEPARENT
from schemas.problems import ProblemError

ReplayPath = Annotated[str, Path(pattern=ids.ROUND_ID_PATTERN, description="`rnd_…`, from the answer that started it or from the list.")]
_LOG: Final = (problems.NOT_APPENDED, problems.UNKNOWN_OUTCOME)
#: Dry runs at once: each reads the log as fast as it can.
_COUNTS_MAX: Final = 2

T = TypeVar("T")


def router(redeliveries: Redeliveries, desk: OperatorDesk, settings: Settings, clock: Clock) -> APIRouter:
    """The routes."""
    routes = guarded(desk)
    counting = anyio.CapacityLimiter(_COUNTS_MAX)

    async def control(ask: Callable[[Connection[Any]], T]) -> T:
        def in_thread() -> T:
            with desk.control() as connection:
                return ask(connection)

        return await anyio.to_thread.run_sync(in_thread)

    async def reading(read: Callable[[], T]) -> T:
        """Of the log. Raises the problems `invalid-request`, `not-possible`, `unavailable`."""
        try:
            return await anyio.to_thread.run_sync(read, limiter=counting)
        except NotPossible as error:
            raise ProblemError(problems.NOT_POSSIBLE, f"{str(error).capitalize()}.") from None
        except ValueError as error:
            raise ProblemError(problems.INVALID_REQUEST, f"{str(error).capitalize()}.") from None
        except (KafkaException, LogError) as error:
            log.warning("replay.unavailable", error=str(error))
            detail = "The log cannot be read right now; nothing was started. Try again in a moment."
            raise ProblemError(problems.UNAVAILABLE, detail, headers={"Retry-After": "2"}) from error

    @routes.post(
        "/replays",
        operation_id="start_replay",
        summary="Deliver events of an organization again from the log, or count what that would deliver",
        description="To one endpoint, or to all that are enabled, each by its filter of now. The same `webhook-id` and body, marked "
        "`X-Triggers-Delivery: replay`; failures are retried, open no circuit breaker and disable nothing. FIFO endpoints get it out of "
        "order, so they are left out unless `out_of_order` says otherwise. Asking twice delivers twice.",
        status_code=202,
        responses={**replay_docs.STARTED, **problem_responses(problems.NOT_FOUND, problems.NOT_POSSIBLE, *BODY_PROBLEMS, *_LOG)},
        openapi_extra=replay_docs.TAKES_REPLAY,
    )
    async def start(request: Request, body: Body) -> Response:
        asked = decoded(body, NewReplay)
        owner = Owner(asked.organization, asked.mode)

        def check(connection: Connection[Any]) -> tuple[tuple[str, ...], float, int, int, Targets]:
            rate = settings.replay.rate_per_s if asked.rate_per_s is None else asked.rate_per_s
            return (
                replays.check_types(asked.event_types), replays.check_rate(rate, settings.replay.rate_per_s_max), *asked.span_ms(),
                replays.targets(connection, owner, asked.endpoint_id, out_of_order=asked.out_of_order),
            )  # fmt: skip

        types, rate, since_ms, until_ms, to = await control(check)
        found = await reading(
            lambda: resolve(
                settings.kafka, owner, since_ms=since_ms, until_ms=until_ms, from_position=asked.from_position,
                until_position=asked.until_position,
            )
        )  # fmt: skip
        wanted = Wanted(owner, types, found.begin, found.end, since_ms, until_ms)
        if asked.dry_run:
            counted = await reading(lambda: count(settings, wanted, to.takers, timeout_s=settings.replay.count_timeout_s))
            told = {"events": counted.events, "endpoints": counted.shown(to.takers), "skipped": replays.skipped(to.skipped)}
            return json_answer({**wanted.shown(), "dry_run": True, **told})
        made = await control(
            lambda connection: replays.start(
                connection, redeliveries.new_round(), wanted, to, rate_per_s=rate, expected=None, actor=actor_of(request)
            )
        )  # fmt: skip
        await ask_for(redeliveries, made, headers(request))
        return json_answer(made.shown(), 202, location=f"/operator/replays/{made.id}")

    @routes.get("/replays", operation_id="list_replays", summary="List replays, newest first", responses=replay_docs.REPLAYS)
    async def list_replays(
        organization: Annotated[str | None, Query(pattern=ids.ORGANIZATION_ID_PATTERN, description="Only of this one.")] = None,
        before: Annotated[
            str, Query(pattern=f"{ids.ROUND_ID_PATTERN}|^$", description="A `next_before`: the last id of the page before.")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=250, description="Entries of a page.")] = 100,
    ) -> Response:
        found = await control(lambda connection: replays.page(connection, organization, before=before, limit=limit + 1))
        page = [one.shown() for one in found[:limit]]
        return json_answer({"replays": page, "next_before": page[-1]["id"] if len(found) > limit else None})

    @routes.get(
        "/replays/{replay}",
        operation_id="get_replay",
        summary="One replay, and how far it is at each endpoint",
        responses={**replay_docs.REPLAY, **problem_responses(problems.NOT_FOUND)},
    )
    async def get_replay(replay: ReplayPath) -> Response:
        return json_answer((await control(lambda connection: replays.get(connection, replay))).shown())

    @routes.patch(
        "/replays/{replay}",
        operation_id="change_replay",
        summary="Pause, resume or cancel a replay, or make it slower or faster",
        description="Holds within a second; what is under way then is still delivered. Retries of one that is paused wait, those of one "
        "that was cancelled end. Resuming one that runs asks again for what the log did not confirm.",
        responses={**replay_docs.REPLAY, **problem_responses(problems.NOT_FOUND, problems.NOT_POSSIBLE, *BODY_PROBLEMS, *_LOG)},
        openapi_extra=replay_docs.TAKES_CHANGE,
    )
    async def change_replay(request: Request, replay: ReplayPath, body: Body) -> Response:
        asked = decoded(body, ReplayChange)

        def change(connection: Connection[Any]) -> Replay:
            if asked.state is None and asked.rate_per_s is None:
                raise ValueError("send a state or a rate_per_s")
            if asked.rate_per_s is not None:
                replays.check_rate(asked.rate_per_s, settings.replay.rate_per_s_max)
            return replays.change(connection, replay, state=asked.state, rate_per_s=asked.rate_per_s, actor=actor_of(request))

        made = await control(change)
        if asked.state == "running":
            await ask_for(redeliveries, made, headers(request))
        return json_answer(made.shown())

    def headers(request: Request) -> Headers:
        context = context_of(request.headers.raw, clock)
        return [(HEADER_REQUEST_ID, context.request_id.encode()), (HEADER_TRACEPARENT, context.trace.traceparent.encode())]

    return routes
