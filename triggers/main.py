"""Where the console script and `python -m triggers` begin.

A process that runs for good is started with the commands of its own module alone: what the others import (FastAPI, Alembic, Redis' client)
is 30 MB that it would keep and never use. Everything else, `--help` too, gets the whole command line.
"""

from __future__ import annotations

import sys
from typing import Final

import typer

#: Commands that run a process (`triggers.commands.run`).
PROCESSES: Final = frozenset({"serve", "process", "deliver"})


def app_for(command: str | None) -> typer.Typer:
    """The command line as far as `command` needs it."""
    if command in PROCESSES:
        from triggers.commands import run  # noqa: PLC0415

        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        run.register(app)
        return app
    from triggers.cli import app as whole  # noqa: PLC0415

    return whole


def main() -> None:
    app_for(sys.argv[1] if len(sys.argv) > 1 else None)()
