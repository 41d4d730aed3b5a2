"""`triggers dead`: deliveries that were given up. They are read from their topic; nothing of Postgres is needed to see them."""

from __future__ import annotations

import base64
import sys
from typing import Annotated, Any, Final, get_args

import typer

from access import audit
from access.times import iso
from projections.letters import Letter, Wanted, letter_at, letters
from projections.trail import At
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas.codec import CodecError
from schemas.deliveries import DeadReason
from schemas.lifecycle import Dropped, LetterOf
from schemas.topics import DELIVERIES_DEAD
from triggers.commands.opened import opened
from triggers.commands.output import Json, explained, show, show_one
from triggers.commands.progress import reading
from triggers.commands.records import (
    JsonLines,
    Limit,
    Place,
    Places,
    Since,
    Until,
    Why,
    WithDropped,
    check_reason,
    drop_all,
    dropped_document,
    dropped_text,
    moment_of,
    place_of,
    place_text,
    print_rows,
    printable,
    safe,
    shown,
)
from triggers.drop import drop

dead = typer.Typer(no_args_is_help=True, help="Dead letters: deliveries that were given up.")

_REASONS: Final[tuple[str, ...]] = get_args(DeadReason)


@dead.command("list")
def dead_list(
    organization: Annotated[str | None, typer.Option(help="Only this organization's: one partition is read.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.")] = None,
    event: Annotated[str | None, typer.Option(help="Only of this event.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Only of events of this type.")] = None,
    reason: Annotated[str | None, typer.Option(help=f"Only for this reason: {', '.join(_REASONS)}.")] = None,
    since: Since = None,
    until: Until = None,
    dropped: WithDropped = False,
    limit: Limit = 1_000,
    json: JsonLines = False,
) -> None:
    """List dead letters, partition by partition, oldest first."""
    with explained(), reading(streaming=json) as line:
        check_reason(reason, _REASONS)
        wanted = Wanted(organization, endpoint, event, event_type, reason, moment_of(since), moment_of(until), dropped)
        found = letters(Settings(), wanted, unreadable=_unreadable, progress=line)
        print_rows(map(row, found), limit, json=json)


@dead.command("show")
def dead_show(place: Place, json: Json = False) -> None:
    """Show a dead letter: every attempt, the event, who dropped it."""
    with explained(), reading() as line:
        settings = Settings()
        found = letter_at(settings, place_of(place, DELIVERIES_DEAD), line)
        event, sealed = opened(settings, bytes(found.letter.event))
    if json:
        show_one({**document(found), "event_base64": base64.b64encode(event or b"").decode(), "sealed": sealed}, json=True)
        return
    show_one({**safe(row(found)), "event": shown(event), **({} if sealed is None else {"sealed": printable(sealed)})}, json=False)
    print()
    show(document(found)["history"], json=False)


@dead.command("drop")
def dead_drop(places: Places, why: Why = None, json: Json = False) -> None:
    """Decide that nothing is done about dead letters: `list` leaves them out. They stay in the log, and the audit log says who decided."""
    with explained(), reading() as line:
        settings, actor = Settings(), audit.command_line_actor()
        found = [letter_at(settings, place_of(place, DELIVERIES_DEAD), line) for place in places]  # all, before any is dropped

        def put_aside(one: Letter) -> Dropped:
            letter = one.letter
            about = LetterOf(event_id=letter.event_id, endpoint_id=letter.endpoint_id, round=letter.round)
            return drop(settings, SYSTEM, one.at, organization=letter.organization, actor=actor, why=why, letter=about)

        done = drop_all(found, put_aside)
    show(done, json=json)


def row(found: Letter) -> dict[str, Any]:
    """A line of the list."""
    letter = found.letter
    last = letter.history[-1] if letter.history else None
    return {
        "place": place_text(found.at),
        "dead_at": iso(letter.dead_at_ms),
        "organization": letter.organization,
        "mode": letter.mode,
        "event_id": letter.event_id,
        "type": found.event_type,
        "endpoint_id": letter.endpoint_id,
        "reason": letter.reason,
        "attempts": len(letter.history),
        "last_status": None if last is None else last.status,
        "last_error": None if last is None else last.error,
        "dropped": dropped_text(found.dropped),
    }


def document(found: Letter) -> dict[str, Any]:
    """Everything, for scripts. The event's bytes as they are in the log."""
    return {
        **row(found),
        "dropped": dropped_document(found.dropped),
        "history": [
            {"attempt": one.attempt, "started_at": iso(one.started_at_ms), "status": one.status, "error": one.error}
            for one in found.letter.history
        ],
        "event_base64": base64.b64encode(bytes(found.letter.event)).decode(),
    }


def _unreadable(at: At, error: CodecError) -> None:
    print(f"triggers: {at.topic}[{at.partition}]@{at.offset} is no dead letter: {error.reason}", file=sys.stderr)
