"""The life of webhook endpoints: made, shown, changed, disabled and enabled, deleted, their secrets rotated. Delivering is `delivery`.

Every change writes its audit row in its own transaction: names and settings, never a secret or the value of a header. Functions that
take an owner find only that owner's endpoints; without one (operators, the command line) any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from psycopg import AsyncConnection, Connection
from psycopg.types.json import Jsonb

from access import audit, changes, endpoint_secrets, organizations
from access.changes import LimitReached, Owner
from access.endpoint_bodies import OVERLAP_S_MAX, Configuration, LegacySignature, Rules, changed
from access.endpoint_secrets import Secret, secret_text
from access.organizations import NotPossible, NotThere
from access.secrets import Keyring
from access.times import iso
from runtime.sql import load
from schemas.events import Mode
from schemas.ids import ENDPOINT_ID_PATTERN, EndpointId

#: Of an organization: every change is a row of the audit log.
CHANGES_PER_MINUTE_MAX: Final = 120
PAGE_MAX: Final = 100
#: In the same words for one that is another's, was deleted, or never was.
NOT_THERE: Final = "there is no such endpoint: list them to see which there are"
DisabledBy = Literal["owner", "operator"]
_ID: Final = re.compile(ENDPOINT_ID_PATTERN)
_ALL: Final = {"organization": None, "mode": None}


class Endpoint(NamedTuple):
    """An endpoint as it is registered. Times are Unix milliseconds. `disabled_reason`: `owner`, `operator`, `gone` or `failing`.

    `blocked_event`: the event that it waits for since then, its schedule being used up (`fifo_block`).
    """

    id: EndpointId
    organization: str
    mode: Mode
    configuration: Configuration
    enabled: bool
    disabled_reason: str | None
    disabled_at_ms: int | None
    failing_since_ms: int | None
    created_at_ms: int
    updated_at_ms: int
    blocked_event: str | None
    blocked_since_ms: int | None

    @property
    def owner(self) -> Owner:
        return Owner(self.organization, self.mode)

    def shown(self, *, header_values: bool = False) -> dict[str, Any]:
        """For people and scripts. Values of headers may be secrets: lists and mere readers get the names."""
        members = msgspec.to_builtins(self.configuration)
        headers = members.pop("headers")
        return {
            "id": self.id,
            "organization": self.organization,
            "mode": self.mode,
            **members,
            **({"headers": headers} if header_values else {}),
            "header_names": list(headers),
            "enabled": self.enabled,
            "disabled_reason": self.disabled_reason,
            "disabled_at": iso(self.disabled_at_ms),
            "failing_since": iso(self.failing_since_ms),
            "created_at": iso(self.created_at_ms),
            "updated_at": iso(self.updated_at_ms),
            "blocked_event_id": self.blocked_event,
            "blocked_since": iso(self.blocked_since_ms),
        }


def add(
    connection: Connection[Any],
    keyring: Keyring,
    endpoint: EndpointId,
    owner: Owner,
    members: Mapping[str, Any],
    *,
    secret: bytes,
    rules: Rules,
    actor: str,
) -> tuple[Endpoint, str]:
    """A new endpoint with these members of `Configuration`, and the text of its signing secret, shown once.

    Raises `NotThere` (organization), `ValueError`, `LimitReached`, `TooManyChanges`.
    """
    configuration = changed(None, members, rules)
    organizations.get(connection, owner.organization)
    with connection.transaction():
        changes.lock(connection, owner)
        _check_pace(connection, owner)
        row = connection.execute(load("access", "count_endpoints"), owner._asdict()).fetchone()
        if row is not None and row[0] >= rules.endpoints_max:
            raise LimitReached(f"there may be {rules.endpoints_max} endpoints in an organization and mode: delete one first")
        connection.execute(load("access", "insert_endpoint"), {"id": endpoint, **owner._asdict(), **_columns(configuration)})
        endpoint_secrets.insert(connection, keyring, endpoint, 1, secret)
        made = get(connection, owner, endpoint)
        _audit(connection, actor, "created", made, {"configuration": _audited(configuration)})
    return made, secret_text(secret)


def get(connection: Connection[Any], owner: Owner | None, endpoint: str) -> Endpoint:
    """Raises `NotThere`."""
    values = {"id": endpoint, **(_ALL if owner is None else owner._asdict())}
    row = connection.execute(load("access", "find_endpoint"), values).fetchone() if _possible(endpoint) else None
    if row is None:
        raise NotThere(NOT_THERE)
    return _endpoint(row)


def page(connection: Connection[Any], owner: Owner | None, *, after: str = "", limit: int | None = None) -> list[Endpoint]:
    """Oldest first, of one owner or of all, from the one after an id on (an empty one is before all)."""
    values = {**(_ALL if owner is None else owner._asdict()), "after": after, "limit": limit}
    return [_endpoint(row) for row in connection.execute(load("access", "list_endpoints"), values)]


def update(
    connection: Connection[Any], owner: Owner | None, endpoint: str, patch: Mapping[str, Any], *, rules: Rules, actor: str
) -> Endpoint:
    """The endpoint after a merge patch (RFC 7396) of its members. What changes nothing is not audited.

    Raises `NotThere`, `ValueError`, `TooManyChanges`.
    """
    with connection.transaction():
        before = _held(connection, owner, endpoint)
        configuration = changed(before.configuration, patch, rules)
        if configuration == before.configuration:
            return before
        connection.execute(load("access", "update_endpoint"), {"id": before.id, **_columns(configuration)})
        old, new = _audited(before.configuration), _audited(configuration)
        names = [name for name in Configuration.__struct_fields__ if getattr(before.configuration, name) != getattr(configuration, name)]
        detail = {"changed": names, "before": {name: old[name] for name in names}, "after": {name: new[name] for name in names}}
        _audit(connection, actor, "updated", before, detail)
        return get(connection, owner, endpoint)


def enable(connection: Connection[Any], owner: Owner | None, endpoint: str, *, actor: str) -> Endpoint:
    """Events are delivered to it again. Raises `NotThere`, `TooManyChanges`."""
    with connection.transaction():
        before = _held(connection, owner, endpoint)
        if before.enabled:
            return before
        connection.execute(load("access", "enable_endpoint"), {"id": before.id})
        _audit(connection, actor, "enabled", before, {"was": before.disabled_reason})
        return get(connection, owner, endpoint)


def disable(connection: Connection[Any], owner: Owner | None, endpoint: str, *, reason: DisabledBy, actor: str) -> Endpoint:
    """Nothing is delivered to it any more. One that is disabled stays so for its first reason. Raises `NotThere`, `TooManyChanges`."""
    with connection.transaction():
        before = _held(connection, owner, endpoint)
        if not before.enabled:
            return before
        connection.execute(load("access", "disable_endpoint"), {"id": before.id, "reason": reason})
        _audit(connection, actor, "disabled", before, {"reason": reason})
        return get(connection, owner, endpoint)


def delete(connection: Connection[Any], owner: Owner | None, endpoint: str, *, actor: str) -> None:
    """It is gone, and its secrets with it; its attempts stay readable. Raises `NotThere`, `TooManyChanges`."""
    with connection.transaction():
        before = _held(connection, owner, endpoint)
        connection.execute(load("access", "delete_endpoint"), {"id": before.id})
        endpoint_secrets.forget(connection, before.id)
        _audit(connection, actor, "deleted", before, {"configuration": _audited(before.configuration)})


def rotate_secret(
    connection: Connection[Any],
    keyring: Keyring,
    owner: Owner | None,
    endpoint: str,
    *,
    secret: bytes,
    given: bool,
    overlap_s: int,
    actor: str,
) -> tuple[Endpoint, str]:
    """A new signing secret, shown once; the one before goes on signing for the overlap. `given`: the caller brought it along.

    Raises `NotThere`, `ValueError`, `TooManyChanges`, and `NotPossible` while too many secrets sign.
    """
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise ValueError(f"the overlap must be 0 to {OVERLAP_S_MAX} seconds ({OVERLAP_S_MAX // 86_400} days)")
    with connection.transaction():
        found = _held(connection, owner, endpoint)
        number = endpoint_secrets.replace(connection, keyring, found.id, secret, overlap_s=overlap_s)
        _audit(connection, actor, "secret_rotated", found, {"secret": number, "given": given, "overlap_s": overlap_s})
    return found, secret_text(secret)


def secrets_of(connection: Connection[Any], found: Endpoint) -> list[Secret]:
    """What may be told of the secrets that sign now, newest first."""
    return endpoint_secrets.valid_now(connection, found.id)


def ask(
    connection: Connection[Any], owner: Owner | None, endpoint: str, what: str, detail: Mapping[str, Any], *, disabled_too: bool, actor: str
) -> Endpoint:
    """Note that deliveries were asked for, before they are. Raises `NotThere`, `TooManyChanges`, and `NotPossible` while it is disabled."""
    with connection.transaction():
        found = _held(connection, owner, endpoint)
        if not (found.enabled or disabled_too):
            raise NotPossible(f"the endpoint {found.id} is disabled: enable it first")
        _audit(connection, actor, f"{what}_requested", found, detail)
    return found


async def is_or_was_of(connection: AsyncConnection[Any], owner: Owner, endpoint: str) -> bool:
    """Whether the endpoint is, or was before it was deleted, this owner's: who may read its attempts."""
    if not _possible(endpoint):
        return False
    cursor = await connection.execute(load("access", "own_endpoint"), {"id": endpoint, **owner._asdict()})
    return await cursor.fetchone() is not None


def _possible(endpoint: str) -> bool:
    """What no endpoint is called is not looked for: PostgreSQL cannot take any text."""
    return _ID.fullmatch(endpoint) is not None


def _held(connection: Connection[Any], owner: Owner | None, endpoint: str) -> Endpoint:
    """The endpoint as it is, held until the transaction ends. First the organization, as `add` does, so that no two wait in a ring.

    Operators' changes are not held back, whatever its owner is busy with.
    """
    found = get(connection, owner, endpoint)
    changes.lock(connection, found.owner)
    if owner is not None:
        _check_pace(connection, owner)
    connection.execute(load("access", "lock_endpoint"), {"id": endpoint})
    return get(connection, owner, endpoint)  # a statement of its own: it sees what the lock was waited for


def _check_pace(connection: Connection[Any], owner: Owner) -> None:
    changes.check_pace(connection, owner.organization, actions="endpoint.", what="endpoints", per_minute_max=CHANGES_PER_MINUTE_MAX)


def _audit(connection: Connection[Any], actor: str, what: str, found: Endpoint, detail: Mapping[str, Any]) -> None:
    audit.record(
        connection,
        actor=actor,
        action=f"endpoint.{what}",
        organization=found.organization,
        target=found.id,
        detail={"mode": found.mode, "url": found.configuration.url, **detail},
    )


def _audited(configuration: Configuration) -> dict[str, Any]:
    """Header values may be secrets: their names are told."""
    members: dict[str, Any] = msgspec.to_builtins(configuration)
    return {**members, "headers": sorted(members["headers"])}


def _columns(configuration: Configuration) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(configuration)
    legacy = members["legacy_signature"]
    return {**members, "headers": Jsonb(members["headers"]), "legacy_signature": None if legacy is None else Jsonb(legacy)}


def _endpoint(row: tuple[Any, ...]) -> Endpoint:
    values = dict(zip(Configuration.__struct_fields__, row[3:15], strict=True))
    if values["legacy_signature"] is not None:
        values["legacy_signature"] = LegacySignature(**values["legacy_signature"])
    return Endpoint(row[0], row[1], row[2], Configuration(**values), *row[15:])
