"""Commands for master keys, which seal the signing secrets of endpoints."""

from __future__ import annotations

import typer

from access import audit, endpoint_secrets
from access.secrets import Keyring
from triggers.commands.output import Json, control_plane, show_one

keyring = typer.Typer(no_args_is_help=True, help="Master keys.")


@keyring.command("rewrap")
def keyring_rewrap(json: Json = False) -> None:
    """Encrypt every secret under the newest master key, so that older ones can be dropped."""
    with control_plane() as (settings, connection):
        ring = Keyring.from_setting(settings.master_keys.get_secret_value())
        count = endpoint_secrets.rewrap(connection, ring, actor=audit.command_line_actor())
        show_one({"master_key": ring.newest, "rewrapped": count}, json=json)


def register(app: typer.Typer) -> None:
    app.add_typer(keyring, name="keyring")
