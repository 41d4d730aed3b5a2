"""Commands for webhook endpoints, of any organization."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from access import audit, endpoint_schedules, endpoint_secrets, endpoints
from access.changes import Owner
from access.endpoint_bodies import Configuration, Rules
from access.secrets import Keyring
from access.times import parse_duration_s
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas import ids
from triggers.commands.options import Modes
from triggers.commands.output import Json, control_plane, show, show_one

endpoint = typer.Typer(no_args_is_help=True, help="Webhook endpoints.")

#: What people see of each endpoint in a list; `show` and --json give all.
_COLUMNS: Final = ("id", "organization", "mode", "url", "event_types", "enabled", "disabled_reason")
#: Characters of a file that holds a secret; the longest secret is shorter.
_SECRET_FILE_CHARS_MAX: Final = 1_024

Members = StrEnum("Members", {name: name for name in Configuration.__struct_fields__ if name != "url"})  # type: ignore[misc]

Id = Annotated[str, typer.Argument(help="Its id: ep_…")]
Description = Annotated[str | None, typer.Option(help="For people.")]
EventTypes = Annotated[list[str] | None, typer.Option(help="May be given several times; order.* for all below order; all by default.")]
Headers = Annotated[list[str] | None, typer.Option(help="Sent along, 'Name: value'. May be given several times.")]
Rate = Annotated[int | None, typer.Option(help="Deliveries a minute.")]
Concurrency = Annotated[int | None, typer.Option(help="Attempts at once.")]
Schedule = Annotated[str | None, typer.Option(help="default, standard, or pauses of its own: 5s,1m,1h.")]
Deadline = Annotated[float | None, typer.Option(help="Seconds an attempt may take in all.")]
FifoBlock = Annotated[
    bool | None, typer.Option("--fifo-block/--no-fifo-block", help="With --fifo: wait for an event whose schedule is used up.")
]
Legacy = Annotated[str | None, typer.Option(help="A second signature: X-Hub-Signature-256=sha256-hex-body.")]
SecretFile = Annotated[
    Path | None, typer.Option(help="A file with a secret of your own, whsec_…, or - for standard input.", allow_dash=True)
]


@endpoint.command("add")
def endpoint_add(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    mode: Annotated[Modes, typer.Option(help="Live endpoints get live events only.")] = Modes.live,
    description: Description = None,
    event_type: EventTypes = None,
    header: Headers = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    schedule: Schedule = None,
    deadline: Deadline = None,
    legacy_signature: Legacy = None,
    fifo: Annotated[bool, typer.Option("--fifo", help="One event after the other, in order.")] = False,
    fifo_block: FifoBlock = None,
    secret_file: SecretFile = None,
    json: Json = False,
) -> None:
    """Register a webhook endpoint. Its signing secret is shown once."""
    with control_plane() as (settings, connection):
        made, secret = endpoints.add(
            connection,
            _keyring(settings),
            ids.endpoint_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            Owner(organization, mode.mode),
            {
                **_members(url, description, event_type, header, rate, concurrency, schedule, deadline, legacy_signature, fifo_block),
                "fifo": fifo,
            },
            secret=_secret(secret_file),
            rules=Rules.of(settings),
            actor=audit.command_line_actor(),
        )
        show_one({**made.shown(), "secret": secret}, json=json)


@endpoint.command("list")
def endpoint_list(
    organization: Annotated[str | None, typer.Option(help="Only this one's endpoints: org_…")] = None,
    json: Json = False,
) -> None:
    """List webhook endpoints."""
    with control_plane() as (_, connection):
        rows = [one.shown() for one in endpoints.page(connection, None) if organization in (None, one.organization)]
        show(rows if json else ({name: row[name] for name in _COLUMNS} for row in rows), json=json)


@endpoint.command("show")
def endpoint_show(endpoint_id: Id, json: Json = False) -> None:
    """Show a webhook endpoint, and which of its secrets sign."""
    with control_plane() as (_, connection):
        found = endpoints.get(connection, None, endpoint_id)
        secrets = [one.shown() for one in endpoints.secrets_of(connection, found)]
        told = secrets if json else [f"{one['number']} (until {one['expires_at'] or 'rotated'})" for one in secrets]
        show_one({**found.shown(header_values=True), "secrets": told}, json=json)


@endpoint.command("update")
def endpoint_update(
    endpoint_id: Id,
    url: Annotated[str | None, typer.Option(help="Where events are posted to.")] = None,
    description: Description = None,
    event_type: EventTypes = None,
    header: Headers = None,
    no_header: Annotated[list[str] | None, typer.Option(help="Name of a header that is not sent any more.")] = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    schedule: Schedule = None,
    deadline: Deadline = None,
    legacy_signature: Legacy = None,
    fifo_block: FifoBlock = None,
    reset: Annotated[list[Members] | None, typer.Option(help="Back to the default. May be given several times.")] = None,
    json: Json = False,
) -> None:
    """Change a webhook endpoint. What is left out stays."""
    with control_plane() as (settings, connection):
        patch = _members(url, description, event_type, header, rate, concurrency, schedule, deadline, legacy_signature, fifo_block)
        if no_header:
            patch["headers"] = {**dict.fromkeys(no_header), **patch.get("headers", {})}
        if at_odds := [name.value for name in reset or () if name.value in patch]:
            raise ValueError(f"{', '.join(at_odds)} cannot be both set and reset")
        patch.update({name.value: None for name in reset or ()})
        if not patch:
            raise ValueError("say what is to change: `triggers endpoint update --help` lists it")
        changed = endpoints.update(connection, None, endpoint_id, patch, rules=Rules.of(settings), actor=audit.command_line_actor())
        show_one(changed.shown(), json=json)


@endpoint.command("disable")
def endpoint_disable(endpoint_id: Id, json: Json = False) -> None:
    """Deliver nothing to a webhook endpoint for now."""
    with control_plane() as (_, connection):
        actor = audit.command_line_actor()
        show_one(endpoints.disable(connection, None, endpoint_id, reason="operator", actor=actor).shown(), json=json)


@endpoint.command("enable")
def endpoint_enable(endpoint_id: Id, json: Json = False) -> None:
    """Deliver to a webhook endpoint again."""
    with control_plane() as (_, connection):
        show_one(endpoints.enable(connection, None, endpoint_id, actor=audit.command_line_actor()).shown(), json=json)


@endpoint.command("delete")
def endpoint_delete(endpoint_id: Id, json: Json = False) -> None:
    """Delete a webhook endpoint with its secrets. Its attempts can still be read."""
    with control_plane() as (_, connection):
        endpoints.delete(connection, None, endpoint_id, actor=audit.command_line_actor())
        show_one({"id": endpoint_id, "deleted": "now"}, json=json)


@endpoint.command("rotate-secret")
def endpoint_rotate_secret(
    endpoint_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old secret goes on signing: 24h, 7d, 0s.")] = "24h",
    secret_file: SecretFile = None,
    json: Json = False,
) -> None:
    """A new signing secret, shown once. Old and new both sign for the overlap."""
    with control_plane() as (settings, connection):
        found, secret = endpoints.rotate_secret(
            connection,
            _keyring(settings),
            None,
            endpoint_id,
            secret=_secret(secret_file),
            given=secret_file is not None,
            overlap_s=parse_duration_s(overlap),
            actor=audit.command_line_actor(),
        )
        show_one({"id": found.id, "url": found.configuration.url, "secret": secret, "overlap": overlap}, json=json)


def _keyring(settings: Settings) -> Keyring:
    return Keyring.from_setting(settings.master_keys.get_secret_value())


def _members(
    url: str | None,
    description: str | None,
    event_types: list[str] | None,
    headers: list[str] | None,
    rate: int | None,
    concurrency: int | None,
    schedule: str | None,
    deadline: float | None,
    legacy: str | None,
    fifo_block: bool | None,
) -> dict[str, Any]:
    """Members of `Configuration`, those that were given. Raises `ValueError`."""
    given: dict[str, Any] = {
        "url": url,
        "description": description,
        "event_types": event_types or None,
        "headers": dict(_pair(one, ":", "a header is 'Name: value'") for one in headers) if headers else None,
        "rate_per_minute": rate,
        "concurrency": concurrency,
        "deadline_s": deadline,
        "fifo_block": fifo_block,
        "legacy_signature": None if legacy is None else dict(zip(("header", "scheme"), _pair(legacy, "=", _LEGACY), strict=True)),
    }
    if schedule in endpoint_schedules.NAMES:
        given["schedule"] = schedule
    elif schedule is not None:
        given["schedule_s"] = [parse_duration_s(part.strip()) for part in schedule.split(",")]
    return {name: value for name, value in given.items() if value is not None}


_LEGACY: Final = "a legacy signature is the header's name, = and its scheme: X-Hub-Signature-256=sha256-hex-body"


def _pair(text: str, separator: str, how: str) -> tuple[str, str]:
    """Both sides of the first separator. Raises `ValueError` without the text: a header's value may be a secret."""
    name, found, value = text.partition(separator)
    if not found:
        raise ValueError(how)
    return name.strip(), value.strip()


def _secret(path: Path | None) -> bytes:
    """The secret in a file, else a new one: on a command line everybody on the machine could read it. Raises `ValueError`."""
    if path is None:
        return os.urandom(endpoint_secrets.SECRET_BYTES)
    try:
        if str(path) == "-":
            return endpoint_secrets.parse_secret(sys.stdin.read(_SECRET_FILE_CHARS_MAX).strip())
        with path.open() as file:
            return endpoint_secrets.parse_secret(file.read(_SECRET_FILE_CHARS_MAX).strip())
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"the secret cannot be read from {path}") from None


def register(app: typer.Typer) -> None:
    app.add_typer(endpoint, name="endpoint")
