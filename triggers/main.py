"""Where the console script and `python -m triggers` begin.

Only the modules of the command that was asked for are imported. A process that runs for good would keep 30 MB of FastAPI, Alembic and
Redis' client that it never uses, and an operator's command would start a second later. `--help` gets the whole command line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final

import typer

#: A command of the first level → the modules of `triggers.commands` it is made of: the first registers it, a further one adds to its group.
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "migrate": ("migrate",),
    "openapi": ("openapi",),
    "serve": ("run",),
    "process": ("run",),
    "deliver": ("run",),
    "dev": ("run",),
    "smoke": ("run",),
    "rebuild": ("rebuild",),
    "lost-offsets": ("lost_offsets",),
    "explain": ("explain",),
    "doctor": ("doctor",),
    "backup": ("backup",),
    "restore": ("backup",),
    "topics": ("topics", "grow"),
    "org": ("organizations",),
    "key": ("keys",),
    "operator": ("operators",),
    "endpoint": ("endpoints", "redeliveries"),
    "replay": ("replays",),
    "retention": ("retention",),
    "keyring": ("keyring",),
    "encryption": ("erase",),
    "erase": ("erase",),
    "audit": ("audit",),
    "dead": ("dead", "redeliveries"),
    "rejected": ("rejected",),
    "event-type": ("event_types",),
}


def app_for(command: str | None) -> typer.Typer:
    """The command line as far as `command` needs it; the whole of it for None and for what is no command."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Event-sourced triggers on Kafka.",
    )  # fmt: skip
    app.callback()(_has_commands)
    modules_of = COMMANDS.get(command or "")
    wanted = list(COMMANDS.values()) if modules_of is None else [modules_of]
    for name in dict.fromkeys(modules[0] for modules in wanted):
        import_module(f"triggers.commands.{name}").register(app)
    for name in dict.fromkeys(name for modules in wanted for name in modules[1:]):
        import_module(f"triggers.commands.{name}")
    return app


def _has_commands() -> None:
    """Without it Typer takes an application of one command for that command, and its name for an argument."""


def main() -> None:
    app_for(sys.argv[1] if len(sys.argv) > 1 else None)()
