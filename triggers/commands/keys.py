"""Commands for API keys."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from access import api_keys, audit, keys
from access.times import parse_duration_s, parse_time_ms
from runtime.clock import SYSTEM
from schemas import ids
from triggers.commands.options import Modes
from triggers.commands.output import Json, control_plane, effective, show, show_one

key = typer.Typer(no_args_is_help=True, help="API keys.")

#: What people see of each key in a list; `show` and --json give all.
_COLUMNS: Final = ("id", "organization", "mode", "name", "prefix", "state", "expires_at", "last_used_at")

Id = Annotated[str, typer.Argument(help="Its id: key_…")]


@key.command("create")
def key_create(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    mode: Annotated[Modes, typer.Option(help="Live and test data never meet.")] = Modes.live,
    name: Annotated[str, typer.Option(help="What it is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="May be given several times; all scopes by default.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it ends: 2027-01-31T00:00:00Z.")] = None,
    expires_in: Annotated[str | None, typer.Option(help="When it ends from now: 90d, 24h.")] = None,
    json: Json = False,
) -> None:
    """Create an API key. It is shown once and stored nowhere."""
    with control_plane() as (_, connection):
        now_ms = SYSTEM.now_ms()
        row, text = api_keys.create(
            connection,
            ids.api_key_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
            organization=organization,
            mode=mode.mode,
            name=name,
            scopes=scope or keys.SCOPES,
            random=os.urandom(keys.RANDOM_BYTES),
            expires_at_ms=_expires_at_ms(expires_at, expires_in, now_ms),
            actor=audit.command_line_actor(),
        )
        show_one({**row.shown(now_ms), "key": text}, json=json)


@key.command("rotate")
def key_rotate(
    key_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working: 24h, 7d, 0s.")] = "24h",
    json: Json = False,
) -> None:
    """A new key with the name, mode, scopes and lifetime of an old one, which ends after the overlap. It is shown once."""
    with control_plane() as (settings, connection):
        now_ms = SYSTEM.now_ms()
        done = api_keys.rotate(
            connection,
            key_id,
            ids.api_key_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
            overlap_s=parse_duration_s(overlap),
            random=os.urandom(keys.RANDOM_BYTES),
            actor=audit.command_line_actor(),
        )
        old_ends_at = done.old.shown(now_ms)["expires_at"]
        told = {"old_ends_at": old_ends_at, "effective": effective(settings, done.version)}
        show_one({**done.new.shown(now_ms), "key": done.text, **told}, json=json)


@key.command("revoke")
def key_revoke(key_id: Id, json: Json = False) -> None:
    """Revoke an API key, at once for every API process that reaches Redis."""
    with control_plane() as (settings, connection):
        version = api_keys.revoke(connection, key_id, actor=audit.command_line_actor())
        show_one({"id": key_id, "revoked": effective(settings, version)}, json=json)


@key.command("list")
def key_list(
    organization: Annotated[str | None, typer.Option(help="Only this one's keys: org_…")] = None,
    json: Json = False,
) -> None:
    """List API keys."""
    with control_plane() as (_, connection):
        rows = [row.shown(SYSTEM.now_ms()) for row in api_keys.page(connection, organization, after="", limit=None)]
        show(rows if json else ({name: row[name] for name in _COLUMNS} for row in rows), json=json)


@key.command("show")
def key_show(key_id: Id, json: Json = False) -> None:
    """Show an API key, without its text."""
    with control_plane() as (_, connection):
        show_one(api_keys.get(connection, key_id).shown(SYSTEM.now_ms()), json=json)


def _expires_at_ms(at: str | None, within: str | None, now_ms: int) -> int | None:
    """Raises `ValueError`."""
    if at is not None and within is not None:
        raise ValueError("give --expires-at or --expires-in, not both")
    if at is not None:
        return parse_time_ms(at)
    return None if within is None else now_ms + parse_duration_s(within) * 1000


def register(app: typer.Typer) -> None:
    app.add_typer(key, name="key")
