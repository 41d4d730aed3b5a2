"""`triggers replay`: events of an organization delivered again from the log, with care."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from psycopg import Connection

from access import audit, replays
from access.changes import Owner
from access.replay_bodies import span_ms
from access.replays import Replay, State, Wanted
from access.times import parse_duration_s, parse_time_ms
from projections.log_reader import LogError
from projections.redeliveries import Redeliveries
from projections.replays import Count, ask_for, count, resolve
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas.events import OrganizationIdField
from triggers.commands.options import Modes
from triggers.commands.output import Json, control_plane, fail, show, show_one
from triggers.commands.redeliveries import asked

replay = typer.Typer(no_args_is_help=True, help="Deliver events again from the log: counted first, paced, pausable.")

Id = Annotated[str, typer.Argument(help="Its id: rnd_…")]
_TIME = "A time (2027-01-31T00:00:00Z), or how long ago (24h)."


@replay.command("start")
def start(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    mode: Annotated[Modes, typer.Option(help="Live or test events.")] = Modes.live,
    endpoint: Annotated[str | None, typer.Option(help="To this one only: ep_…")] = None,
    to_all: Annotated[bool, typer.Option("--all", help="To all endpoints that are enabled.")] = False,
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Of this type, or of all below it: order.*. Again for more.")
    ] = None,
    since: Annotated[str | None, typer.Option(help=f"Events received from then on. {_TIME}")] = None,
    until: Annotated[str | None, typer.Option(help=f"Events received before then. {_TIME}")] = None,
    from_position: Annotated[int | None, typer.Option(help="From this offset of events.accepted on.", min=0)] = None,
    until_position: Annotated[int | None, typer.Option(help="Until before this offset.", min=0)] = None,
    rate: Annotated[float | None, typer.Option(help="Deliveries a second to each endpoint; 50 by default.")] = None,
    out_of_order: Annotated[bool, typer.Option("--out-of-order", help="To FIFO endpoints as well.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and ask for nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    json: Json = False,
) -> None:
    """Count what would be delivered, by reading the log; then deliver it."""
    with control_plane() as (settings, connection):
        if to_all == (endpoint is not None):
            raise ValueError("say to whom: either --endpoint or --all")
        owner = Owner(_organization(organization), mode.mode)
        types = replays.check_types(event_type)
        per_s = replays.check_rate(settings.replay.rate_per_s if rate is None else rate, settings.replay.rate_per_s_max)
        since_ms, until_ms = span_ms(_time_ms(since), _time_ms(until))
        to = replays.targets(connection, owner, endpoint, out_of_order=out_of_order)
        try:
            found = resolve(
                settings.kafka, owner, since_ms=since_ms, until_ms=until_ms, from_position=from_position, until_position=until_position
            )  # fmt: skip
            wanted = Wanted(owner, types, found.begin, found.end, since_ms, until_ms)
            counted = count(settings, wanted, to.takers)
        except LogError as error:
            raise RuntimeError(f"the log could not be read: {error}") from None
        told = {"events": counted.events, "endpoints": counted.shown(to.takers), "skipped": replays.skipped(to.skipped)}
        if dry_run:
            show_one({**wanted.shown(), "dry_run": True, **told} if json else _summary(wanted, counted, told), json=json)
            return
        if not json:
            show_one(_summary(wanted, counted, told), json=False)
        if not yes:
            _confirm(sum(counted.deliveries.values()), per_s)

        async def ask(redeliveries: Redeliveries) -> Replay:
            made = replays.start(
                connection, redeliveries.new_round(), wanted, to, rate_per_s=per_s, expected=counted.deliveries,
                actor=audit.command_line_actor(),
            )  # fmt: skip
            await ask_for(redeliveries, made, ())
            return made

        made = asked(settings, ask)
        show_one(made.shown() if json else {"replay": made.id, "state": made.state, "rate": f"{per_s:g}/s to each endpoint"}, json=json)


@replay.command("list")
def list_replays(
    organization: Annotated[str | None, typer.Option(help="Of this one only: org_…")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """List replays, newest first."""
    with control_plane() as (_, connection):
        found = replays.page(connection, None if organization is None else _organization(organization), limit=limit)
        show([one.shown() for one in found] if json else [_row(one) for one in found], json=json)


@replay.command("show")
def show_replay(replay_id: Id, json: Json = False) -> None:
    """Show one replay, and how far it is at each endpoint."""
    with control_plane() as (_, connection):
        _show(replays.get(connection, replay_id), json=json)


@replay.command("pause")
def pause(replay_id: Id, json: Json = False) -> None:
    """Begin no more deliveries, until it is resumed. Its retries wait, too."""
    _change(replay_id, "paused", None, json=json)


@replay.command("resume")
def resume(
    replay_id: Id,
    rate: Annotated[float | None, typer.Option(help="Deliveries a second to each endpoint from now on.")] = None,
    json: Json = False,
) -> None:
    """Go on where it was paused; of one that runs, change the rate, and ask again for what the log did not confirm."""
    _change(replay_id, "running", rate, json=json)


@replay.command("cancel")
def cancel(replay_id: Id, json: Json = False) -> None:
    """Deliver no more of it, for good; what is under way ends."""
    _change(replay_id, "cancelled", None, json=json)


def _change(replay_id: str, state: State, rate: float | None, *, json: bool) -> None:
    with control_plane() as (settings, connection):
        made = _changed(settings, connection, replay_id, state, rate)
        _show(made, json=json)


def _changed(settings: Settings, connection: Connection[Any], replay_id: str, state: State, rate: float | None) -> Replay:
    if rate is not None:
        replays.check_rate(rate, settings.replay.rate_per_s_max)
    made = replays.change(connection, replay_id, state=state, rate_per_s=rate, actor=audit.command_line_actor())
    if state == "running":
        asked(settings, lambda redeliveries: ask_for(redeliveries, made, ()))
    return made


def _show(one: Replay, *, json: bool) -> None:
    if json:
        show_one(one.shown(), json=True)
        return
    show_one({name: value for name, value in one.shown().items() if name not in {"endpoints", "skipped"}}, json=False)
    print()
    parts = [*(part.shown(one.state) for part in one.parts)]
    show(
        [*parts, *({**dict.fromkeys(parts[0]), "endpoint_id": e, "state": f"skipped: {why}"} for e, why in one.skipped.items())], json=False
    )


def _row(one: Replay) -> dict[str, Any]:
    expected = [part.expected for part in one.parts]
    return {
        "id": one.id, "organization": one.organization, "state": one.state, "endpoints": len(one.parts),
        "begun": sum(part.begun for part in one.parts), "expected": None if None in expected else sum(e or 0 for e in expected),
        "created_at": one.shown()["created_at"],
    }  # fmt: skip


def _summary(wanted: Wanted, counted: Count, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "events": counted.events,
        "positions": f"{wanted.from_position} until {wanted.until_position}",
        **{f"to {one['endpoint_id']}": f"{one['deliveries']} deliveries, {one['url']}" for one in told["endpoints"]},
        **{f"not to {one['endpoint_id']}": one["why"] for one in told["skipped"]},
    }


def _confirm(deliveries: int, per_s: float) -> None:
    if not sys.stdin.isatty():
        raise fail(f"{deliveries} deliveries would be made; nothing was started: say --yes, or --dry-run")
    if not typer.confirm(f"Make {deliveries} deliveries, {per_s:g} a second to each endpoint?", err=True):
        raise fail("nothing was started")


def _organization(text: str) -> str:
    try:
        return str(msgspec.convert(text, OrganizationIdField))
    except msgspec.ValidationError:
        raise ValueError(f"{text!r} is no id of an organization: `triggers org list` shows them") from None


def _time_ms(text: str | None) -> int | None:
    """An RFC 3339 time, or a duration before now. Raises `ValueError`."""
    if text is None:
        return None
    return SYSTEM.now_ms() - 1_000 * parse_duration_s(text) if text[-1:].isalpha() and "T" not in text else parse_time_ms(text)


def register(app: typer.Typer) -> None:
    app.add_typer(replay, name="replay")
