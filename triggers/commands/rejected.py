"""`triggers rejected`: records that could not be read, parked with their bytes. Whatever is in them, what is printed is plain text."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, get_args

import typer

from access import audit
from projections.rejects import Reject, Wanted, reject_at, rejects
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas.codec import RejectReason
from schemas.ids import ORGANIZATION_PREFIX
from schemas.topics import EVENTS_REJECTED
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
    escaped,
    moment_of,
    place_of,
    place_text,
    print_rows,
    printable,
    safe,
    shown,
    time_text,
)
from triggers.drop import drop

rejected = typer.Typer(no_args_is_help=True, help="Rejected records: what could not be read.")

_REASONS: Final[tuple[str, ...]] = get_args(RejectReason)


@rejected.command("list")
def rejected_list(
    organization: Annotated[str | None, typer.Option(help="Only under this organization's key.")] = None,
    event: Annotated[str | None, typer.Option(help="Only of this event, as far as its headers say.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only from this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help=f"Only for this reason: {', '.join(_REASONS)}.")] = None,
    since: Since = None,
    until: Until = None,
    dropped: WithDropped = False,
    limit: Limit = 1_000,
    json: JsonLines = False,
) -> None:
    """List rejected records, partition by partition in the order in which they were parked. Times are the records' own."""
    with explained(), reading(streaming=json) as line:
        check_reason(reason, _REASONS)
        wanted = Wanted(organization, event, topic, reason, moment_of(since), moment_of(until), dropped)
        print_rows(map(row, rejects(Settings(), wanted, progress=line)), limit, json=json)


@rejected.command("show")
def rejected_show(place: Place, json: Json = False) -> None:
    """Show a rejected record: its bytes, escaped; its headers; where it was and why it could not be read."""
    with explained(), reading() as line:
        settings = Settings()
        found = reject_at(settings, place_of(place, EVENTS_REJECTED), line)
        value, sealed = opened(settings, found.value)
    if json:
        more = {"opened_base64": None if value == found.value else _base64(value), "sealed": sealed}
        show_one({**document(found), **more}, json=True)
        return
    show_one(
        {
            **safe(row(found)),
            "detail": printable(found.detail),
            "value": shown(value),
            **({} if sealed is None else {"sealed": printable(sealed)}),
        },
        json=False,
    )
    print()
    show([{"header": printable(name), "value": shown(value)} for name, value in found.headers], json=False)


@rejected.command("drop")
def rejected_drop(places: Places, why: Why = None, json: Json = False) -> None:
    """Decide that nothing is done about rejected records: `list` leaves them out. They stay in the log; the audit log says who decided."""
    with explained(), reading() as line:
        settings, actor = Settings(), audit.command_line_actor()
        found = [reject_at(settings, place_of(place, EVENTS_REJECTED), line) for place in places]  # all, before any is dropped
        done = drop_all(found, lambda one: drop(settings, SYSTEM, one.at, organization=organization_of(one), actor=actor, why=why))
    show(done, json=json)


def organization_of(found: Reject) -> str | None:
    """Whose it is, as far as its key says so."""
    text = (found.key or b"").decode(errors="replace")
    return text if text.startswith(ORGANIZATION_PREFIX) and text.isascii() and text.isprintable() else None


def row(found: Reject) -> dict[str, Any]:
    """A line of the list."""
    origin = found.origin
    return {
        "place": place_text(found.at),
        "time": time_text(found.timestamp_ms),
        "of": f"{origin.topic or '?'}[{origin.partition}]@{origin.offset}",
        "reason": found.reason,
        "event_id": found.event_id,
        "key": escaped(found.key, bytes_max=64),
        "bytes": None if found.value is None else len(found.value),
        "dropped": dropped_text(found.dropped),
    }


def document(found: Reject) -> dict[str, Any]:
    """Everything, for scripts: bytes as base64, and escaped for people."""
    return {
        **row(found),
        "dropped": dropped_document(found.dropped),
        "detail": found.detail,
        "key_base64": _base64(found.key),
        "value_base64": _base64(found.value),
        "value_escaped": escaped(found.value),
        "headers": [{"name": name, "value_base64": _base64(value), "value_escaped": escaped(value)} for name, value in found.headers],
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
