"""`triggers retention`: how long events stay readable, and the moment at which that is applied."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from psycopg import Connection

from access import audit, organizations
from access.organizations import RETENTION_DAYS_MAX, Organization
from access.times import iso
from runtime.clock import SYSTEM
from runtime.sql import load
from schemas.events import MODES
from schemas.ids import EventId, event_time_ms
from triggers import retention as work
from triggers.commands.output import Json, control_plane, effective, show, show_one

retention = typer.Typer(no_args_is_help=True, help="How long events stay readable.")

One = Annotated[str | None, typer.Option(help="Of this organization only: org_…")]


@retention.command("show")
def retention_show(organization: One = None, json: Json = False) -> None:
    """Show how many days each organization's events stay readable, and how far that has been applied."""
    with control_plane() as (settings, connection):
        rows = connection.execute(load("triggers", "retention_marks"))
        marks = {(owner, mode): iso(event_time_ms(EventId(event_id))) for owner, mode, event_id in rows}
        listed = []
        for one in _organizations(connection, organization):
            days, own = work.of(one, settings.retention)
            listed.append(
                {
                    "organization": one.id, "plan": one.plan, "days": days if days or json else "for ever",
                    "from": "its own" if own else "plan", **{f"{mode}_kept_from": marks.get((one.id, mode)) for mode in MODES},
                }
            )  # fmt: skip
        show(listed, json=json)


@retention.command("set")
def retention_set(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    days: Annotated[int | None, typer.Option(min=1, max=RETENTION_DAYS_MAX, help="Days that events stay readable.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Whatever its plan has.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Back to the plan's.")] = False,
    json: Json = False,
) -> None:
    """Say how long an organization's events stay readable. Nothing goes before `triggers retention apply`."""
    with control_plane() as (settings, connection):
        if (days is not None) + forever + plan != 1:
            raise ValueError("give one of --days, --forever and --plan")
        chosen = None if plan else 0 if forever else days
        made, version = organizations.update(connection, organization, {"retention_days": chosen}, actor=audit.command_line_actor())
        show_one({**made._asdict(), "effective": effective(settings, version)}, json=json)


@retention.command("apply")
def retention_apply(
    organization: One = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go, and move nothing.")] = False,
    json: Json = False,
) -> None:
    """Take what is older than its organization keeps it out of inboxes and tables. Running it again takes nothing twice: for cron."""
    with control_plane() as (settings, connection):
        connection.execute("SET statement_timeout = 0")  # counting what is long due may take its time
        actor, listed = audit.command_line_actor(), []
        for due in work.due(connection, settings, SYSTEM, _organizations(connection, organization)):
            if not dry_run:
                work.apply(connection, settings, SYSTEM, due, actor=actor, told=_tell)
            listed.append(
                {
                    "organization": due.organization.id, "mode": due.mode, "days": due.days, "kept_from": iso(due.before_ms),
                    "events": due.events, "duplicates": due.duplicates, "taken": "no (dry run)" if dry_run else "yes",
                }
            )  # fmt: skip
        show(listed, json=json)


def _organizations(connection: Connection[Any], organization: str | None) -> list[Organization]:
    return organizations.list_all(connection) if organization is None else [organizations.get(connection, organization)]


def _tell(mark_ms: int) -> None:
    if sys.stderr.isatty():
        print(f"kept from {iso(mark_ms)}", file=sys.stderr)
