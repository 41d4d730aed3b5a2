"""What changes by integrators have in common: whose things they are, what was not given, and when there are too many."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from psycopg import Connection

from access.organizations import NotThere
from runtime.sql import load
from schemas.events import Mode


class LimitReached(ValueError):
    """There are as many as there may be."""


class TooManyChanges(ValueError):
    """Changes come too fast; the same one can be made in a minute."""


class Owner(NamedTuple):
    """Whose things: live and test are apart."""

    organization: str
    mode: Mode


class Unset:
    """A member that was not given: it stays as it is."""


UNSET: Final = Unset()


def lock(connection: Connection[Any], owner: Owner) -> None:
    """Changes of one organization come one after the other, until the transaction ends. Raises `NotThere`."""
    if connection.execute(load("access", "lock_organization"), {"id": owner.organization}).fetchone() is None:
        raise NotThere(f"there is no organization {owner.organization}: `triggers org list` shows them")


def check_pace(connection: Connection[Any], organization: str, *, actions: str, what: str, per_minute_max: int) -> None:
    """Raises `TooManyChanges` if the audit log has that many changes of the last minute whose action begins with `actions`."""
    values = {"organization": organization, "actions": actions, "count": per_minute_max}
    row = connection.execute(load("access", "count_changes"), values).fetchone()
    if row is not None and row[0] >= per_minute_max:
        raise TooManyChanges(f"{what} may be changed {per_minute_max} times a minute: go on in a minute")
