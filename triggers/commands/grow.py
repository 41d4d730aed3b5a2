"""`triggers topics grow`: the log moves to topics with more partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime import crashpoints
from runtime.clock import SYSTEM
from runtime.settings import Settings
from triggers.commands.backup import files_explained
from triggers.commands.meter import Meter
from triggers.commands.output import Json, explained, fail, show_one
from triggers.commands.topics import topics
from triggers.grow.move import give_up as give_up_move
from triggers.grow.move import grow as grow_to


@topics.command("grow")
def grow(
    directory: Annotated[Path, typer.Argument(help="A folder of its own: it will hold the log twice, packed.", file_okay=False)],
    partitions: Annotated[int | None, typer.Option(help="How many each topic shall have.", min=2)] = None,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Leave the system as it is. Possible until its tables and topics are replaced.")
    ] = False,
    json: Json = False,
) -> None:
    """Move the log to topics with more partitions, while every process is stopped. Stopped, the same command goes on."""
    crashpoints.arm_from_environment()
    with explained(), files_explained(directory):
        settings = Settings()
        if give_up:
            state = give_up_move(settings, directory)
            show_one({"partitions": state.old, "given_up": state.new}, json=json)
            return
        if partitions is None:
            raise fail("how many partitions? Give --partitions")
        try:
            done = grow_to(settings, directory, partitions, SYSTEM, Meter())
        except KeyboardInterrupt:
            raise fail("stopped: the same command goes on, and what of the system was not replaced yet is as it was") from None
        show_one(
            {
                "partitions": done.state.new,
                "before": done.state.old,
                "generation": done.generation,
                "resumed": done.resumed,
                "records_written": done.records,
                "rows": done.rows,
                "inbox": done.state.inbox[0],
                "retention_lifted": done.kept_longer,
                "warnings": done.warnings,
                "next": f"set TRIGGERS_KAFKA__PARTITIONS={done.state.new} for every process, and start them",
            },
            json=json,
        )
