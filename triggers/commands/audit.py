"""`triggers audit`: an organization's events as a file that proves itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from access import audit as audit_log
from runtime.clock import SYSTEM
from runtime.postgres import connect
from runtime.settings import Settings
from schemas.events import OrganizationIdField
from triggers.audit.check import State, check
from triggers.audit.export import export
from triggers.commands.meter import Meter
from triggers.commands.output import Json, explained, fail, show_one

audit = typer.Typer(no_args_is_help=True, help="An organization's events as a file that proves itself.")

File = Annotated[Path, typer.Argument(help="The export, one JSON document a line.", dir_okay=False)]


@audit.command("export")
def audit_export(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    file: File,
    json: Json = False,
) -> None:
    """Write every accepted event of an organization with a hash chain, or go on with a file that is there."""
    with explained():
        settings = Settings()
        try:
            owner = msgspec.convert(organization, OrganizationIdField)
        except msgspec.ValidationError:
            raise ValueError(f"{organization!r} is no id of an organization: `triggers org list` shows them") from None
        try:
            state = export(settings.kafka, owner, file, SYSTEM, Meter())
        except OSError as error:
            raise ValueError(f"{file} could not be written: {error.strerror or error}") from None
        # What stands in the audit log is what a file can be held against later.
        with connect(settings.postgres, application="cli") as connection:
            audit_log.record(
                connection,
                actor=audit_log.command_line_actor(),
                action="audit.exported",
                organization=owner,
                target=owner,
                detail={"topic": state.about.topic, "partition": state.about.partition, **_chain(state)},
            )
    show_one(shown(state), json=json)


@audit.command("verify")
def audit_verify(
    file: File,
    chain: Annotated[str | None, typer.Option(help="A link noted when the file was made: it must be at one of its checkpoints.")] = None,
    json: Json = False,
) -> None:
    """Check that nothing in a file was changed, added, left out or moved. Needs no server and no settings."""
    with explained():
        try:
            with file.open("rb") as lines:
                state = check(lines, noted=chain)
        except OSError as error:
            raise ValueError(f"{file} could not be read: {error.strerror or error}") from None
        if state.size != file.stat().st_size:
            raise fail(
                f"the file does not end with a checkpoint: something may be missing. Its export was stopped; "
                f"`triggers audit export {state.about.organization} {file}` completes it"
            )
        if chain is not None and not state.noted:
            raise fail(f"every line follows from the one before, but no checkpoint has {chain}: the file is not the one that was noted")
    show_one(shown(state), json=json)


def shown(state: State) -> dict[str, Any]:
    return {
        "organization": state.about.organization,
        "topic": state.about.topic,
        "partition": state.about.partition,
        "from_offset": state.about.first_offset,
        **_chain(state),
        "first": _time(state.first_ms),
        "last": _time(state.last_ms),
    }


def _chain(state: State) -> dict[str, Any]:
    return {"next_offset": state.next_offset, "records": state.records, "chain": state.link.hex()}


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def register(app: typer.Typer) -> None:
    app.add_typer(audit, name="audit")
