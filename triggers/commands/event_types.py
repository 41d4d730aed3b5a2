"""Commands of the catalogue of event types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from access import audit, epoch, event_types
from access.changes import UNSET, Owner
from access.event_types import EventType
from access.json_schemas import SCHEMA_BYTES_MAX
from runtime.settings import Settings
from triggers.commands.options import Modes
from triggers.commands.output import Json, control_plane, show, show_one

event_type = typer.Typer(no_args_is_help=True, help="Event types and the schemas of their payloads.")

Organization = Annotated[str, typer.Argument(help="Its id: org_…")]
Name = Annotated[str, typer.Argument(metavar="TYPE", help="As events name it: order.paid")]
Mode = Annotated[Modes, typer.Option(help="Live and test data never meet.")]

_SOON: Final = "within 5 s (Redis was not told, so caches have to notice: is TRIGGERS_REDIS__URL right?)"


@event_type.command("put")
def put(
    organization: Organization,
    name: Name,
    mode: Mode = Modes.live,
    description: Annotated[str | None, typer.Option(help="For people; stays as it is without this.")] = None,
    schema: Annotated[Path | None, typer.Option(help="A file with JSON Schema 2020-12, or - for standard input.", allow_dash=True)] = None,
    no_schema: Annotated[bool, typer.Option("--no-schema", help="Do not check payloads any more.")] = False,
    json: Json = False,
) -> None:
    """Make or change an event type. Its schema is enforced at once; what is left out stays as it is."""
    with control_plane() as (settings, connection):
        if schema is not None and no_schema:
            raise ValueError("--schema and --no-schema are opposites: give one of them")
        change = event_types.put(
            connection,
            Owner(organization, mode.mode),
            name,
            description=UNSET if description is None else description,
            schema=_read(schema) if schema is not None else None if no_schema else UNSET,
            actor=audit.command_line_actor(),
        )
        row = _row(change.event_type)
        row["warnings"] = [warned._asdict() if json else f"{warned.pointer}: {warned.change}" for warned in change.warnings]
        row["enforced"] = _when(settings, change.revocation_version)
        show_one(row, json=json)


@event_type.command("list")
def list_(organization: Organization, mode: Mode = Modes.live, json: Json = False) -> None:
    """List the event types of an organization."""
    with control_plane() as (_, connection):
        page, _more = event_types.list_page(connection, Owner(organization, mode.mode))
        show((_row(one) for one in page), json=json)


@event_type.command("show")
def show_(organization: Organization, name: Name, mode: Mode = Modes.live, json: Json = False) -> None:
    """Show an event type with its schema, as it was sent."""
    with control_plane() as (_, connection):
        found = event_types.get(connection, Owner(organization, mode.mode), name)
        text = None if found.schema is None else msgspec.Raw(found.schema) if json else found.schema.decode()
        show_one({**_row(found), "schema": text}, json=json)


@event_type.command("delete")
def delete(organization: Organization, name: Name, mode: Mode = Modes.live, json: Json = False) -> None:
    """Take an event type out of the catalogue: its events are not checked any more. Its schema versions are kept."""
    with control_plane() as (settings, connection):
        version = event_types.delete(connection, Owner(organization, mode.mode), name, actor=audit.command_line_actor())
        show_one({"type": name, "deleted": _when(settings, version)}, json=json)


def _row(found: EventType) -> dict[str, Any]:
    return {
        "type": found.type,
        "description": found.description,
        "schema_version": found.schema_version,
        "created_at": found.created_at.isoformat(timespec="seconds"),
        "updated_at": found.updated_at.isoformat(timespec="seconds"),
    }


def _when(settings: Settings, version: int | None) -> str:
    """From when on the processes go by it."""
    return "now" if version is None or epoch.tell_caches(settings.redis, version) else _SOON


def _read(path: Path) -> bytes:
    """The schema's text. One byte more than may be is read, so that a huge file is refused and not read."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(SCHEMA_BYTES_MAX + 1)
        with path.open("rb") as file:
            return file.read(SCHEMA_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"the schema cannot be read: {error.strerror} ({path})") from None


def register(app: typer.Typer) -> None:
    app.add_typer(event_type, name="event-type")
