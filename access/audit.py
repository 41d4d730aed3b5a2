"""The audit log: who changed what, written in the transaction of the change, never with a secret."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from runtime.sql import load


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
