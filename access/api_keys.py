"""The life of API keys: created (shown once), listed, revoked. How they are found on a request is `access.keys` and `access.auth`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from access import audit, keys, organizations
from access.organizations import NotThere
from access.texts import one_line
from runtime.sql import load
from schemas.events import Mode
from schemas.ids import ApiKeyId


class ApiKey(NamedTuple):
    """A key as operators see it: never its text or hash."""

    id: ApiKeyId
    organization: str
    mode: Mode
    name: str
    prefix: str
    scopes: tuple[str, ...]
    revoked: bool


def create(
    connection: Connection[Any],
    key_id: ApiKeyId,
    *,
    organization: str,
    mode: Mode,
    name: str,
    scopes: Sequence[str],
    random: bytes,
    actor: str,
) -> tuple[ApiKey, str]:
    """The key's row and its text, which is stored nowhere. Raises `NotThere`, `ValueError`."""
    if unknown := set(scopes) - set(keys.SCOPES):
        raise ValueError(f"there is no scope {', '.join(sorted(unknown))}: the scopes are {', '.join(keys.SCOPES)}")
    if not scopes:
        raise ValueError("a key needs at least one scope")
    one_line("name", name, chars_max=organizations.NAME_CHARS_MAX)
    organizations.get(connection, organization)
    text = keys.generate(mode, random)
    row = ApiKey(key_id, organization, mode, name, keys.prefix(text), tuple(scopes), False)
    with connection.transaction():
        values = {**row._asdict(), "scopes": list(scopes), "hash": keys.digest(text)}
        connection.execute(load("access", "insert_key"), values)
        audit.record(
            connection,
            actor=actor,
            action="api_key.created",
            organization=organization,
            target=key_id,
            detail={"name": name, "mode": mode, "scopes": list(scopes)},
        )
    return row, text


def revoke(connection: Connection[Any], key_id: str, *, actor: str) -> int:
    """Revoke at once; returns the revocation version that caches must see (see `access.auth`). Raises `NotThere`.

    A second time changes nothing and is not audited; its version lets a caller tell caches that were out of reach the first time.
    """
    with connection.transaction():
        row = connection.execute(load("access", "revoke_key"), {"id": key_id}).fetchone()
        if row is not None:
            audit.record(connection, actor=actor, action="api_key.revoked", organization=row[0], target=key_id, detail={})
        elif connection.execute(load("access", "key_exists"), {"id": key_id}).fetchone() is None:
            raise NotThere(f"there is no API key {key_id}: `triggers key list` shows them")
        statement = "raise_revocation_version" if row is not None else "revocation_version"
        version = connection.execute(load("access", statement)).fetchone()
        if version is None:
            raise RuntimeError("control.revocation is empty: run `triggers migrate`")
    return int(version[0])


def list_all(connection: Connection[Any]) -> list[ApiKey]:
    return [ApiKey._make((*row[:5], tuple(row[5]), row[6])) for row in connection.execute(load("access", "list_keys"))]
