"""Erasure: data keys destroyed, so that nothing sealed under them can be read again, wherever a copy of it lies.

The log is told first (`schemas.lifecycle.Erased`), then the keys are deleted with their audit row in one transaction, then the caches hear
of it. A crash between leaves a record that says what is to go, and keys that are still there: asked again, or read back from the log
(`apply`), it ends the same. Keys are named, so nothing that was made meanwhile goes with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit, data_keys, epoch, organizations
from access.envelopes import subject_digest
from access.secrets import Keyring
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.sql import load
from schemas.events import SCHEMA_VERSION
from schemas.ids import DataKeyId, OrganizationId
from schemas.lifecycle import ERASED_KEYS_MAX, Erased

ACTOR_OF_THE_LOG: Final = "lifecycle"


class Wanted(NamedTuple):
    """What is to be erased. `subject` is None for the whole organization: the keys of both are those there are now."""

    organization: OrganizationId
    subject: str | None
    keys: tuple[DataKeyId, ...]


def look(connection: Connection[Any], keyring: Keyring, organization: str, subject: str | None) -> Wanted:
    """The data keys that an erasure would destroy; none where nothing was encrypted. Raises `NotThere`, `KeyringError`."""
    owner = organizations.get(connection, organization).id
    digest: bytes | None = None
    if subject is not None:
        found = connection.execute(load("access", "data_keys_by_digest"), {"organization": owner, "digests": [data_keys.INDEX]}).fetchone()
        if found is None:
            return Wanted(owner, subject, ())
        digest = subject_digest(data_keys.unwrapped(keyring, owner, found), subject)
    rows = connection.execute(load("access", "data_keys_to_erase"), {"organization": owner, "digest": digest}).fetchall()
    return Wanted(owner, subject, tuple(DataKeyId(row[0]) for row in rows))


def erase(connection: Connection[Any], clock: Clock, wanted: Wanted, tell_log: Callable[[Erased], object], *, actor: str) -> int:
    """Destroy them; returns the revocation version to tell caches. `tell_log` returns once the record is in the log, or raises.

    The connection is in autocommit.
    """
    for at in range(0, len(wanted.keys), ERASED_KEYS_MAX):
        tell_log(
            Erased(
                v=SCHEMA_VERSION, organization=wanted.organization, what="organization" if wanted.subject is None else "subject",
                keys=list(wanted.keys[at : at + ERASED_KEYS_MAX]), actor=actor, at_ms=clock.now_ms(),
            )
        )  # fmt: skip
    reach("erasure.after_log")
    with connection.transaction():
        _delete(connection, wanted.organization, wanted.keys)
        # No subject here: the audit log is kept for longer than anybody's data.
        detail = {"what": "organization" if wanted.subject is None else "subject", "keys": len(wanted.keys)}
        audit.record(
            connection, actor=actor, action="data.erased", organization=wanted.organization, target=wanted.organization, detail=detail
        )
        version = epoch.raise_version(connection)
    reach("erasure.after_commit")
    return version


def apply(connection: Connection[Any], records: Iterable[Erased]) -> tuple[int, int | None]:
    """Delete again what the log says is erased. Returns how many keys were there, and the revocation version to tell if any was.

    The connection is in autocommit.
    """
    gone, version = 0, None
    for record in records:
        with connection.transaction():
            deleted = _delete(connection, record.organization, record.keys)
            if deleted:
                audit.record(
                    connection, actor=ACTOR_OF_THE_LOG, action="data.erased", organization=record.organization,
                    target=record.organization, detail={"what": record.what, "keys": deleted, "again": True},
                )  # fmt: skip
                version = epoch.raise_version(connection)
                gone += deleted
    return gone, version


def _delete(connection: Connection[Any], organization: str, keys: Iterable[DataKeyId]) -> int:
    return connection.execute(load("access", "delete_data_keys"), {"organization": organization, "ids": list(keys)}).rowcount
