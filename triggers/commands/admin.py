"""Commands that prepare the tables; and the published contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime import migrations
from runtime.settings import Settings
from triggers.commands.output import Json, explained, show_one
from triggers.contract import contract


def migrate(json: Json = False) -> None:
    """Bring the database to the newest schema. Safe to run at any time, by many at once."""
    with explained():
        before, after = migrations.migrate(Settings().postgres)
        show_one({"before": before, "after": after}, json=json)


def openapi(
    output: Annotated[
        Path | None, typer.Option(help="A file to write instead of standard output: docs/openapi.json is checked in.")
    ] = None,
) -> None:
    """Print the OpenAPI document of the HTTP API. Needs no server."""
    with explained():
        text = contract()
        if output is None:
            print(text, end="")
        else:
            output.write_text(text)


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)
    app.command("openapi")(openapi)
