"""Organizations: made, changed and suspended by operators. Every other thing in the control plane belongs to one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypedDict

from psycopg import Connection

from access import audit, epoch
from access.texts import one_line
from runtime.sql import load
from schemas.ids import OrganizationId

PLANS: Final = ("free", "starter", "pro", "enterprise")
NAME_CHARS_MAX: Final = 200
#: What the column (PostgreSQL integer) holds.
RATE_LIMIT_MAX: Final = 2**31 - 1
RETENTION_DAYS_MAX: Final = 36_500


class Organization(NamedTuple):
    id: OrganizationId
    name: str
    plan: str
    rate_limit_per_minute: int | None
    suspended: bool = False
    encryption: bool = False
    retention_days: int | None = None


class Change(TypedDict, total=False):
    """What is to be different. A rate limit or retention of None is the plan's; a retention of 0 days is for ever.

    `encryption` is of events that come from now on.
    """

    name: str
    plan: str
    rate_limit_per_minute: int | None
    suspended: bool
    encryption: bool
    retention_days: int | None


class NotThere(LookupError):
    """What a command names does not exist."""


class NotPossible(Exception):
    """What a command names exists, and its state does not allow the command."""


def create(
    connection: Connection[Any], organization: OrganizationId, *, name: str, plan: str, rate_limit_per_minute: int | None, actor: str
) -> Organization:
    """One transaction. Raises `ValueError` for a plan, name or rate limit that is not valid."""
    made = _checked(Organization(organization, name, plan, rate_limit_per_minute))
    with connection.transaction():
        connection.execute(load("access", "insert_organization"), made._asdict())
        detail = {"name": name, "plan": plan, "rate_limit_per_minute": rate_limit_per_minute}
        audit.record(connection, actor=actor, action="organization.created", organization=organization, target=organization, detail=detail)
    return made


def update(connection: Connection[Any], organization: str, change: Change, *, actor: str) -> tuple[Organization, int]:
    """The organization as it is now, and the revocation version that caches must see. Raises `NotThere`, `ValueError`.

    What is so already is neither changed nor audited; the version lets a caller tell caches that were out of reach the first time.
    A suspension has a row of its own in the audit log.
    """
    with connection.transaction():
        row = connection.execute(load("access", "lock_organization"), {"id": organization}).fetchone()
        if row is None:
            raise _not_there(organization)
        before = Organization._make(row)
        after = _checked(before._replace(**change))
        if after == before:
            return after, epoch.current_version(connection)
        connection.execute(load("access", "update_organization"), after._asdict())
        differing = [name for name in Organization._fields if getattr(before, name) != getattr(after, name)]
        if after.suspended != before.suspended:
            differing.remove("suspended")
            _audit(connection, "organization.suspended" if after.suspended else "organization.resumed", before, after, ["suspended"], actor)
        if differing:
            _audit(connection, "organization.updated", before, after, differing, actor)
        return after, epoch.raise_version(connection)


def _audit(connection: Connection[Any], action: str, before: Organization, after: Organization, names: list[str], actor: str) -> None:
    detail = {"before": {name: getattr(before, name) for name in names}, "after": {name: getattr(after, name) for name in names}}
    audit.record(connection, actor=actor, action=action, organization=after.id, target=after.id, detail=detail)


def _checked(organization: Organization) -> Organization:
    if organization.plan not in PLANS:
        raise ValueError(f"the plan must be one of {', '.join(PLANS)}, not {organization.plan!r}")
    limit = organization.rate_limit_per_minute
    if limit is not None and not 1 <= limit <= RATE_LIMIT_MAX:
        raise ValueError(f"the rate limit must be 1 to {RATE_LIMIT_MAX} events a minute")
    days = organization.retention_days
    if days is not None and not 0 <= days <= RETENTION_DAYS_MAX:
        raise ValueError(f"retention must be 1 to {RETENTION_DAYS_MAX} days, or 0 for ever")
    one_line("name", organization.name, chars_max=NAME_CHARS_MAX)
    return organization


def page(connection: Connection[Any], *, after: str, limit: int | None) -> list[Organization]:
    """Oldest first, from the one after an id on (an empty one is before all)."""
    rows = connection.execute(load("access", "list_organizations"), {"after": after, "limit": limit})
    return [Organization._make(row) for row in rows]


def list_all(connection: Connection[Any]) -> list[Organization]:
    return page(connection, after="", limit=None)


def get(connection: Connection[Any], organization: str) -> Organization:
    """Raises `NotThere`."""
    row = connection.execute(load("access", "find_organization"), {"id": organization}).fetchone()
    if row is None:
        raise _not_there(organization)
    return Organization._make(row)


def _not_there(organization: str) -> NotThere:
    return NotThere(f"there is no organization {organization}: `triggers org list` shows them")
