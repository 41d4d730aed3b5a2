"""Commands that run something: each process, the local system with all of them, the smoke test."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from runtime.settings import Settings
from triggers import processes
from triggers.commands.output import explained


class Processors(StrEnum):
    dedup = "dedup"
    project = "project"


def serve() -> None:
    """Run the HTTP API."""
    with explained():
        processes.run("api", processes.api, Settings())


def process(name: Annotated[Processors, typer.Argument(help="Which processor.")]) -> None:
    """Run a processor: `dedup` (events.ingested → events.accepted) or `project` (topics → Postgres)."""
    with explained():
        processes.run(name.value, processes.dedup if name is Processors.dedup else processes.project, Settings())


def deliver() -> None:
    """Run webhook delivery."""
    with explained():
        processes.run("delivery", processes.deliver, Settings())


def dev(
    state: Annotated[Path, typer.Option(help="Where data and logs of the local system lie.")] = Path(".triggers"),
    samples: Annotated[bool, typer.Option(help="Send sample events and show what becomes of them.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the API; 0 takes a free one.")] = 8000,
) -> None:
    """Run the whole system on this machine, in the foreground: servers, API, processors, delivery. Ctrl-C stops it."""
    from triggers.local import run_dev  # noqa: PLC0415 - only this command needs the local stack

    with explained():
        run_dev(state, samples=samples, port=port)


def smoke() -> None:
    """Send one event across every hop of a system of its own, a line per hop, then stop it."""
    from triggers.local import run_smoke  # noqa: PLC0415

    with explained():
        run_smoke()


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
    app.command("process")(process)
    app.command("deliver")(deliver)
    app.command("dev")(dev)
    app.command("smoke")(smoke)
