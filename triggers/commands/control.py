"""Commands of the control plane: endpoints and master keys."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from access import audit, egress, endpoints
from access.secrets import Keyring
from runtime.clock import SYSTEM
from schemas import ids
from triggers.commands.options import Modes
from triggers.commands.output import Json, control_plane, show, show_one

endpoint = typer.Typer(no_args_is_help=True, help="Webhook endpoints.")
keyring = typer.Typer(no_args_is_help=True, help="Master keys.")


@endpoint.command("add")
def endpoint_add(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    mode: Annotated[Modes, typer.Option(help="Live endpoints get live events only.")] = Modes.live,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    event_type: Annotated[list[str] | None, typer.Option(help="May be given several times; all types by default.")] = None,
    json: Json = False,
) -> None:
    """Register a webhook endpoint. Its signing secret is shown once."""
    with control_plane() as (settings, connection):
        made, secret = endpoints.add(
            connection,
            Keyring.from_setting(settings.master_keys.get_secret_value()),
            ids.endpoint_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            organization=organization,
            mode=mode.mode,
            url=url,
            description=description,
            event_types=event_type,
            random=os.urandom(endpoints.SECRET_BYTES),
            rules=egress.rules(settings),
            actor=audit.command_line_actor(),
        )
        show_one({**made._asdict(), "secret": secret}, json=json)


@endpoint.command("list")
def endpoint_list(json: Json = False) -> None:
    """List webhook endpoints."""
    with control_plane() as (_, connection):
        show((row._asdict() for row in endpoints.list_all(connection)), json=json)


@keyring.command("rewrap")
def keyring_rewrap(json: Json = False) -> None:
    """Encrypt every secret under the newest master key, so that older ones can be dropped."""
    with control_plane() as (settings, connection):
        ring = Keyring.from_setting(settings.master_keys.get_secret_value())
        count = endpoints.rewrap(connection, ring, actor=audit.command_line_actor())
        show_one({"master_key": ring.newest, "rewrapped": count}, json=json)
