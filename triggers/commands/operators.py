"""Commands for operators, whose tokens open the operator API."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from access import audit, keys, operators
from runtime.clock import SYSTEM
from schemas import ids
from triggers.commands.output import Json, control_plane, show, show_one

operator = typer.Typer(no_args_is_help=True, help="Operators of this system.")


@operator.command("create")
def operator_create(name: Annotated[str, typer.Argument(help="A person or a program.")], json: Json = False) -> None:
    """Create an operator. The token is shown once and stored nowhere."""
    with control_plane() as (_, connection):
        made, token = operators.create(
            connection,
            ids.operator_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            name=name,
            random=os.urandom(keys.RANDOM_BYTES),
            actor=audit.command_line_actor(),
        )
        show_one({**made.shown(), "token": token}, json=json)


@operator.command("list")
def operator_list(json: Json = False) -> None:
    """List operators."""
    with control_plane() as (_, connection):
        show((row.shown() for row in operators.list_all(connection)), json=json)


@operator.command("revoke")
def operator_revoke(operator_id: Annotated[str, typer.Argument(help="Its id: opr_…")], json: Json = False) -> None:
    """Revoke an operator's token, at once."""
    with control_plane() as (_, connection):
        operators.revoke(connection, operator_id, actor=audit.command_line_actor())
        show_one({"id": operator_id, "revoked": "now"}, json=json)


def register(app: typer.Typer) -> None:
    app.add_typer(operator, name="operator")
