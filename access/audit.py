"""The audit log: who changed what, written in the transaction of the change, never with a secret."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from runtime.sql import load


class Entry(NamedTuple):
    """A row. `detail` holds what was changed: `before` and `after` where something was there before."""

    id: int
    at_ms: int
    actor: str
    action: str
    organization: str | None
    target: str
    detail: dict[str, Any]


def command_line_actor() -> str:
    """`cli:<user of the operating system>`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # no name for this user id, as in a bare container
        return "cli:unknown"


def record(
    connection: Connection[Any], *, actor: str, action: str, organization: str | None, target: str, detail: Mapping[str, Any]
) -> None:
    """One row. The caller's transaction must also hold the change itself."""
    connection.execute(
        load("access", "insert_audit"),
        {"actor": actor, "action": action, "organization": organization, "target": target, "detail": Jsonb(dict(detail))},
    )


def page(connection: Connection[Any], organization: str | None, *, before: int, limit: int) -> list[Entry]:
    """Newest first, of one organization or of all, from the one before an id on."""
    rows = connection.execute(load("access", "page_audit"), {"organization": organization, "before": before, "limit": limit})
    return [Entry._make(row) for row in rows]
