"""Organizations: made and listed by operators. Every other thing in the control plane belongs to one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit
from access.texts import one_line
from runtime.sql import load
from schemas.ids import OrganizationId

PLANS: Final = ("free", "starter", "pro", "enterprise")
NAME_CHARS_MAX: Final = 200
#: What the column (PostgreSQL integer) holds.
_RATE_LIMIT_MAX: Final = 2**31 - 1


class Organization(NamedTuple):
    id: OrganizationId
    name: str
    plan: str
    rate_limit_per_minute: int | None


class NotThere(LookupError):
    """What a command names does not exist."""


def create(
    connection: Connection[Any], organization: OrganizationId, *, name: str, plan: str, rate_limit_per_minute: int | None, actor: str
) -> Organization:
    """One transaction. Raises `ValueError` for a plan, name or rate limit that is not valid."""
    if plan not in PLANS:
        raise ValueError(f"the plan must be one of {', '.join(PLANS)}, not {plan!r}")
    if rate_limit_per_minute is not None and not 1 <= rate_limit_per_minute <= _RATE_LIMIT_MAX:
        raise ValueError(f"the rate limit must be 1 to {_RATE_LIMIT_MAX} events a minute")
    made = Organization(organization, one_line("name", name, chars_max=NAME_CHARS_MAX), plan, rate_limit_per_minute)
    with connection.transaction():
        connection.execute(load("access", "insert_organization"), made._asdict())
        audit.record(
            connection, actor=actor, action="organization.created", organization=organization, target=organization, detail=made._asdict()
        )
    return made


def list_all(connection: Connection[Any]) -> list[Organization]:
    return [Organization(*row) for row in connection.execute(load("access", "list_organizations"))]


def get(connection: Connection[Any], organization: str) -> Organization:
    """Raises `NotThere`."""
    row = connection.execute(load("access", "find_organization"), {"id": organization}).fetchone()
    if row is None:
        raise NotThere(f"there is no organization {organization}: `triggers org list` shows them")
    return Organization._make(row)
