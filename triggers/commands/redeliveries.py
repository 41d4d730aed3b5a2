"""Deliveries that an operator asks for, of any organization: `triggers endpoint test|retry|recover` and `triggers dead redrive`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar

import typer
from psycopg import Connection

from access import audit, endpoints
from access.endpoints import Endpoint
from access.times import iso, parse_duration_s, parse_time_ms
from projections.drops import dropped_letters
from projections.letters import partitions_of
from projections.queries import Owner
from projections.redeliveries import TIME_MAX_MS, Redeliveries, check_test_type, recovery, redelivery
from runtime.clock import SYSTEM
from runtime.kafka import Bus
from runtime.postgres import FOLDS_SCHEMA, pool
from runtime.settings import Settings
from runtime.topics import admin, refuse_elsewhere
from schemas import kept, strict
from schemas.deliveries import LEFT_OUT_MAX
from schemas.events import TEST_TYPE
from schemas.ids import EventId, OrganizationId, RoundId, parse_event_id
from schemas.problems import ProblemError
from schemas.topics import DELIVERIES_REQUESTS
from triggers.commands.dead import dead
from triggers.commands.endpoints import endpoint
from triggers.commands.output import Json, control_plane, show, show_one
from triggers.commands.progress import reading

T = TypeVar("T")

Id = Annotated[str, typer.Argument(help="Its id: ep_…")]
EventArgument = Annotated[str, typer.Argument(help="Its id: evt_…")]
_TIME: Final = "A time (2027-01-31T00:00:00Z), or how long ago (24h)."
Since = Annotated[str, typer.Option(help=f"Events received from then on. {_TIME}")]
Until = Annotated[str | None, typer.Option(help=f"Events received before then; now by default. {_TIME}")]


@endpoint.command("test")
def endpoint_test(
    endpoint_id: Id,
    event_type: Annotated[str, typer.Option("--type", help="Of the event that is made for it.")] = TEST_TYPE,
    payload: Annotated[str, typer.Option(help="Its payload, JSON.")] = "",
    json: Json = False,
) -> None:
    """Post a test event to a webhook endpoint, also to one that is disabled. It counts for nothing."""
    with control_plane() as (settings, connection):
        check_test_type(event_type)
        found = endpoints.get(connection, None, endpoint_id)

        async def ask(to: Redeliveries) -> dict[str, Any]:
            round_id, event = to.new_round(), to.test_event(_owner(found), event_type, _json(payload) if payload else b"")
            detail = {"round": round_id, "event": event.id, "type": event.type}
            _note(connection, found, "test", detail, disabled_too=True)
            await to.append(redelivery(round_id, "test", found.id, event), ())
            return {"round": round_id, "cause": "test", "endpoint_id": found.id, "event_id": event.id}

        show_one(asked(settings, ask), json=json)


@endpoint.command("retry")
def endpoint_retry(endpoint_id: Id, event_id: EventArgument, json: Json = False) -> None:
    """Deliver one event of the inbox to a webhook endpoint again, with the whole schedule."""
    with control_plane() as (settings, connection):
        found = endpoints.get(connection, None, endpoint_id)

        async def ask(to: Redeliveries) -> dict[str, Any]:
            round_id, event = to.new_round(), await to.event(_owner(found), event_id)
            _note(connection, found, "retry", {"round": round_id, "event": event.id})
            await to.append(redelivery(round_id, "retry", found.id, event), ())
            return {"round": round_id, "cause": "retry", "endpoint_id": found.id, "event_id": event.id}

        show_one(asked(settings, ask), json=json)


@endpoint.command("recover")
def endpoint_recover(endpoint_id: Id, since: Since, until: Until = None, json: Json = False) -> None:
    """Deliver all that a webhook endpoint missed in a time: its dead letters, and what was held while it was disabled."""
    with control_plane() as (settings, connection):
        found, span = endpoints.get(connection, None, endpoint_id), _span(since, until)
        show_one(asked(settings, lambda to: _recover(to, connection, found, *span)), json=json)


@dead.command("redrive")
def dead_redrive(
    organization: Annotated[str | None, typer.Option(help="Of all its endpoints that are enabled: org_…")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Of this one only: ep_…")] = None,
    event: Annotated[str | None, typer.Option(help="Of this event only: evt_…")] = None,
    since: Annotated[str | None, typer.Option(help=f"Events received from then on; all by default. {_TIME}")] = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and ask for nothing.")] = False,
    json: Json = False,
) -> None:
    """Deliver dead letters again, each in a round beside its history; not what was dropped, delivered since, or is on its way."""
    with control_plane() as (settings, connection):
        if (organization is None) == (endpoint is None):
            raise ValueError("say whose dead letters: either --organization or --endpoint")
        if event is not None and parse_event_id(event) is None:
            raise ValueError(f"{event} is no event id: evt_…")
        if endpoint is not None:
            found = [endpoints.get(connection, None, endpoint)]
        else:
            found = [one for one in endpoints.page(connection, None) if one.organization == organization and one.enabled]
        span = _span(since, until)
        with reading() as line:
            partitions = {partition for one in found for partition in partitions_of(settings, one.organization)}
            dropped = {one: letters for number in partitions for one, letters in dropped_letters(settings, number, line).items()}

        async def ask(to: Redeliveries) -> Sequence[dict[str, Any]]:
            return [await _redrive(to, connection, one, *span, event, dropped.get(one.id, ()), dry_run=dry_run) for one in found]

        show([row for row in asked(settings, ask) if row["deliveries"] or endpoint is not None], json=json)


async def _recover(to: Redeliveries, connection: Connection[Any], found: Endpoint, since_ms: int, until_ms: int) -> dict[str, Any]:
    round_id, missed = to.new_round(), await to.missed(_owner(found), found.id, since_ms=since_ms, until_ms=until_ms)
    told = {"since": iso(since_ms), "until": iso(until_ms), "deliveries": missed.deliveries}
    _note(connection, found, "recovery", {"round": round_id, **told})
    await to.append(recovery(round_id, "recover", _owner(found), found.id, since_ms=since_ms, until_ms=until_ms), ())
    return {"round": round_id, "cause": "recover", "endpoint_id": found.id, **told, "more": missed.more}


async def _redrive(
    to: Redeliveries,
    connection: Connection[Any],
    found: Endpoint,
    since_ms: int,
    until_ms: int,
    event: str | None,
    dropped: Sequence[tuple[EventId, RoundId]],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """One endpoint's. Nothing is asked for where there is nothing to deliver. Raises `ValueError` where too many were dropped."""
    event_id = None if event is None else parse_event_id(event)
    begin, end = kept.range_of(since_ms, until_ms, event_id)
    left_out = sorted(one for one in dropped if begin <= one[0] < end)
    if len(left_out) > LEFT_OUT_MAX:
        raise ValueError(f"{found.id}: {len(left_out):,} dead letters of that time were dropped: narrow it, to at most {LEFT_OUT_MAX:,}")
    span = {"since_ms": since_ms, "until_ms": until_ms}
    missed = await to.missed(_owner(found), found.id, **span, held=False, event_id=event_id, left_out=left_out)
    row = {"endpoint_id": found.id, "url": found.configuration.url, "deliveries": missed.deliveries, "more": missed.more}
    if dry_run or not missed.deliveries:
        return {**row, "round": None}
    round_id = to.new_round()
    told = {"since": iso(since_ms), "until": iso(until_ms), "event": event_id, "deliveries": missed.deliveries}
    _note(connection, found, "redrive", {"round": round_id, **told})
    wanted = recovery(round_id, "redrive", _owner(found), found.id, **span, held=False, event_id=event_id, left_out=left_out)
    await to.append(wanted, ())
    return {**row, "round": round_id}


def asked(settings: Settings, ask: Callable[[Redeliveries], Awaitable[T]]) -> T:
    """What `ask` answers. Raises `RuntimeError` in the words of the problem it met."""

    async def whole() -> T:
        async with _redeliveries(settings) as to:
            return await ask(to)

    try:
        return asyncio.run(whole())
    except ProblemError as error:
        raise RuntimeError(error.detail) from None


@asynccontextmanager
async def _redeliveries(settings: Settings) -> AsyncIterator[Redeliveries]:
    client = admin(settings.kafka)
    refuse_elsewhere(settings.kafka, client.list_topics(timeout=settings.operating.check_timeout_s).topics, DELIVERIES_REQUESTS)
    bus = Bus(settings.kafka, client_id="cli")
    connections = pool(settings.postgres, search_path=FOLDS_SCHEMA, application="cli", size_max=1)
    await connections.open()
    await bus.start()
    try:
        yield Redeliveries(connections, lambda: bus, SYSTEM)
    finally:
        await bus.stop()
        await connections.close()


def _note(connection: Connection[Any], found: Endpoint, what: str, detail: dict[str, Any], *, disabled_too: bool = False) -> None:
    endpoints.ask(connection, None, found.id, what, detail, disabled_too=disabled_too, actor=audit.command_line_actor())


def _json(text: str) -> bytes:
    """Raises `ValueError`."""
    try:
        strict.check(text.encode())
    except strict.NotStrict as error:
        raise ValueError(f"the payload is not JSON: it {error.detail}") from None
    return text.encode()


def _owner(found: Endpoint) -> Owner:
    return Owner(OrganizationId(found.organization), found.mode)


def _span(since: str | None, until: str | None) -> tuple[int, int]:
    """Unix ms of both. Raises `ValueError`."""
    begin, end = 0 if since is None else _time_ms(since), SYSTEM.now_ms() if until is None else _time_ms(until)
    if begin >= end:
        raise ValueError("--since must be before --until, and before now")
    return begin, end


def _time_ms(text: str) -> int:
    """An RFC 3339 time, or a duration before now. Raises `ValueError`."""
    found = SYSTEM.now_ms() - 1_000 * parse_duration_s(text) if text[-1:].isalpha() and "T" not in text else parse_time_ms(text)
    return min(max(found, 0), TIME_MAX_MS)
