"""Commands for organizations."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from access import audit, organizations
from access.organizations import Change
from runtime.clock import SYSTEM
from schemas import ids
from triggers.commands.options import Plans
from triggers.commands.output import Json, control_plane, effective, show, show_one

org = typer.Typer(no_args_is_help=True, help="Organizations.")

Id = Annotated[str, typer.Argument(help="Its id: org_…")]


@org.command("create")
def org_create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    plan: Annotated[Plans, typer.Option(help="Sets its rate limit.")] = Plans.free,
    rate_limit: Annotated[int | None, typer.Option(min=1, help="Events a minute, instead of the plan's.")] = None,
    json: Json = False,
) -> None:
    """Create an organization."""
    with control_plane() as (_, connection):
        made = organizations.create(
            connection,
            ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            name=name,
            plan=plan.value,
            rate_limit_per_minute=rate_limit,
            actor=audit.command_line_actor(),
        )
        show_one(made._asdict(), json=json)


@org.command("list")
def org_list(json: Json = False) -> None:
    """List organizations."""
    with control_plane() as (_, connection):
        show((row._asdict() for row in organizations.list_all(connection)), json=json)


@org.command("update")
def org_update(
    organization: Id,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    plan: Annotated[Plans | None, typer.Option(help="Sets its rate limit.")] = None,
    rate_limit: Annotated[int | None, typer.Option(min=1, help="Events a minute, instead of the plan's.")] = None,
    plan_rate_limit: Annotated[bool, typer.Option("--plan-rate-limit", help="Back to the plan's rate limit.")] = False,
    json: Json = False,
) -> None:
    """Change an organization's name, plan or rate limit, at once for every API process that reaches Redis."""
    change: Change = {}
    if name is not None:
        change["name"] = name
    if plan is not None:
        change["plan"] = plan.value
    if rate_limit is not None or plan_rate_limit:
        change["rate_limit_per_minute"] = rate_limit
    _update(organization, change, at_odds=rate_limit is not None and plan_rate_limit, json=json)


@org.command("suspend")
def org_suspend(organization: Id, json: Json = False) -> None:
    """Refuse all of an organization's keys with 403, at once for every API process that reaches Redis. Its data stays."""
    _update(organization, {"suspended": True}, json=json)


@org.command("resume")
def org_resume(organization: Id, json: Json = False) -> None:
    """Let a suspended organization's keys in again."""
    _update(organization, {"suspended": False}, json=json)


def _update(organization: str, change: Change, *, at_odds: bool = False, json: bool) -> None:
    with control_plane() as (settings, connection):
        if not change:
            raise ValueError("say what is to change: --name, --plan, --rate-limit or --plan-rate-limit")
        if at_odds:
            raise ValueError("give --rate-limit or --plan-rate-limit, not both")
        made, version = organizations.update(connection, organization, change, actor=audit.command_line_actor())
        show_one({**made._asdict(), "effective": effective(settings, version)}, json=json)


def register(app: typer.Typer) -> None:
    app.add_typer(org, name="org")
