"""`triggers erase` and `triggers encryption`: who is encrypted, and whose data nobody shall read any more."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from access import audit, erasure, organizations
from access.secrets import Keyring
from runtime import crashpoints
from runtime.clock import SYSTEM
from runtime.settings import Settings
from triggers.commands.output import Json, control_plane, effective, explained, fail, show_one
from triggers.commands.progress import reading
from triggers.erasure import reapply, tell_log

encryption = typer.Typer(no_args_is_help=True, help="Encryption of an organization's events.")
erase = typer.Typer(no_args_is_help=True, help="Erasure: data keys destroyed, so that what they seal is unreadable for ever.")

Id = Annotated[str, typer.Argument(help="Its id: org_…")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be destroyed, and destroy nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask. It cannot be undone.")]


@encryption.command("on")
def on(organization: Id, json: Json = False) -> None:
    """Encrypt the organization's events that come from now on. Those that are in the log stay as they are."""
    _set(organization, True, json=json)


@encryption.command("off")
def off(organization: Id, json: Json = False) -> None:
    """Keep its events in clear from now on. What was encrypted stays so, readable until it is erased."""
    _set(organization, False, json=json)


@encryption.command("show")
def show(organization: Id, json: Json = False) -> None:
    """Show whether its events are encrypted, and how many data keys there are."""
    with control_plane() as (settings, connection):
        found = organizations.get(connection, organization)
        wanted = erasure.look(connection, _keyring(settings), organization, None)
        show_one({"organization": found.id, "encryption": found.encryption, "data_keys": len(wanted.keys)}, json=json)


@erase.command("subject")
def subject(
    organization: Id,
    subject: Annotated[str, typer.Argument(help="The subject, as events name it.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make every encrypted event of a subject unreadable, live and test. It cannot be undone."""
    _erase(organization, subject, dry_run=dry_run, yes=yes, json=json)


@erase.command("organization")
def organization_(organization: Id, dry_run: DryRun = False, yes: Yes = False, json: Json = False) -> None:
    """Make every encrypted event of an organization unreadable, live and test. It cannot be undone."""
    _erase(organization, None, dry_run=dry_run, yes=yes, json=json)


@erase.command("reapply")
def reapply_(json: Json = False) -> None:
    """Carry out every erasure of the log again: after the control plane was restored from a dump that is older than an erasure."""
    with explained(), reading() as line:
        gone = reapply(Settings(), line)
    show_one({"data_keys_destroyed": gone}, json=json)


def _set(organization: str, encryption: bool, *, json: bool) -> None:
    with control_plane() as (settings, connection):
        if encryption:
            _keyring(settings)  # without master keys no event could be taken any more
        made, version = organizations.update(connection, organization, {"encryption": encryption}, actor=audit.command_line_actor())
        show_one({"organization": made.id, "encryption": made.encryption, "effective": effective(settings, version)}, json=json)


def _erase(organization: str, subject: str | None, *, dry_run: bool, yes: bool, json: bool) -> None:
    crashpoints.arm_from_environment()
    with control_plane() as (settings, connection):
        wanted = erasure.look(connection, _keyring(settings), organization, subject)
        told = {
            "organization": wanted.organization,
            "what": "organization" if subject is None else "subject",
            "data_keys": len(wanted.keys),
        }
        if dry_run or not wanted.keys:
            show_one({**told, "erased": False}, json=json)
            return
        if not yes:
            _confirm(len(wanted.keys), wanted.organization)
        version = erasure.erase(connection, SYSTEM, wanted, partial(tell_log, settings), actor=audit.command_line_actor())
        show_one({**told, "erased": True, "effective": effective(settings, version)}, json=json)


def _confirm(keys: int, organization: str) -> None:
    if not sys.stdin.isatty():
        raise fail(f"{keys} data keys would be destroyed for ever; nothing was: say --yes, or --dry-run")
    if not typer.confirm(f"Destroy {keys} data keys of {organization}? What they seal cannot be read again", err=True):
        raise fail("nothing was destroyed")


def _keyring(settings: Settings) -> Keyring:
    return Keyring.from_setting(settings.master_keys.get_secret_value())
