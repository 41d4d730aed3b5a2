"""`triggers migrate`."""

from __future__ import annotations

import typer

from runtime import migrations
from runtime.settings import Settings
from triggers.commands.output import Json, explained, show_one


def migrate(json: Json = False) -> None:
    """Bring the database to the newest schema. Safe to run at any time, by many at once."""
    with explained():
        before, after = migrations.migrate(Settings().postgres)
        show_one({"before": before, "after": after}, json=json)


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)
