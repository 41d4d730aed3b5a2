"""Organizations: made and listed by operators. Every other thing in the control plane belongs to one."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from access import audit
from runtime.sql import load
from schemas.ids import OrganizationId

PLANS = ("free", "starter", "pro", "enterprise")


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
    """One transaction. Raises `ValueError` for a plan or name that is not valid."""
    if plan not in PLANS:
        raise ValueError(f"the plan must be one of {', '.join(PLANS)}, not {plan!r}")
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise ValueError("the name must have 1 to 200 printable characters")
    made = Organization(organization, name, plan, rate_limit_per_minute)
    with connection.transaction():
        connection.execute(load("access", "insert_organization"), made._asdict())
        audit.record(
            connection, actor=actor, action="organization.created", organization=organization, target=organization, detail=made._asdict()
        )
    return made


def list_all(connection: Connection[Any]) -> list[Organization]:
    return [Organization(*row) for row in connection.execute(load("access", "list_organizations"))]


def require(connection: Connection[Any], organization: str) -> Organization:
    """Raises `NotThere`."""
    for found in list_all(connection):
        if found.id == organization:
            return found
    raise NotThere(f"there is no organization {organization}: `triggers org list` shows them")
