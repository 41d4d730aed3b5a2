"""`triggers openapi`: the published contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triggers.commands.output import explained
from triggers.contract import contract


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
    app.command("openapi")(openapi)
