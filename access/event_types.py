"""The catalogue of event types: names, descriptions, and JSON Schemas that payloads must match. `ingest.catalogue` enforces them.

Every change writes its audit row and raises the revocation version in its own transaction: processes cache schemas bound to that version,
as they do keys. Versions of a schema are kept for ever.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit, changes, compatibility, epoch, json_schemas
from access.changes import LimitReached, Owner, Unset
from access.compatibility import Warned
from access.organizations import NotThere
from access.schema_walk import Document, SchemaError
from access.texts import one_line
from runtime.sql import load
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, RESERVED_TYPES, is_reserved

#: Of an organization and mode: types there are, types there ever were, bytes of all schemas that are enforced.
TYPES_MAX: Final = 1_000
TYPES_EVER_MAX: Final = 10_000
SCHEMAS_BYTES_MAX: Final = 4 * 1024 * 1024
#: Of one type.
VERSIONS_MAX: Final = 1_000
#: Of an organization: each change makes every process look its caches up again.
CHANGES_PER_MINUTE_MAX: Final = 120
DESCRIPTION_CHARS_MAX: Final = 1_000
PAGE_MAX: Final = 1_000
VERSIONS_PAGE_MAX: Final = 50
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)
_INTEGER_MAX: Final = 2**31 - 1


class EventType(NamedTuple):
    """`schema` is the text as it was sent; it and `schema_version` are None where payloads are not checked."""

    type: str
    description: str
    schema_version: int | None
    schema: bytes | None
    created_at: datetime
    updated_at: datetime


class Version(NamedTuple):
    """One version of a type's schema: the text as it was sent and its SHA-256."""

    version: int
    schema: bytes
    sha256: bytes
    created_at: datetime


class Change(NamedTuple):
    """What a `put` did. `revocation_version` is for `access.epoch.tell_caches`, None if nothing changed."""

    event_type: EventType
    created: bool
    warnings: list[Warned]
    revocation_version: int | None


def check_type(event_type: str) -> str:
    """Raises `ValueError` for a name that no event of a producer can have."""
    if len(event_type) > EVENT_TYPE_CHARS_MAX or not _TYPE.fullmatch(event_type):
        raise ValueError(
            "that is no event type: use letters, digits, _ and - in parts joined by dots, like order.created, "
            f"at most {EVENT_TYPE_CHARS_MAX} characters"
        )
    if is_reserved(event_type):
        raise ValueError(f"types that begin with {RESERVED_TYPES} are those of this service's own events: choose another name")
    return event_type


def put(
    connection: Connection[Any], owner: Owner, event_type: str, *, description: str | Unset, schema: bytes | Unset | None, actor: str
) -> Change:
    """Make or change a type. `schema` is JSON text, or None: payloads are not checked any more.

    Raises `NotThere` (organization), `SchemaError`, `LimitReached`, `TooManyChanges`, `ValueError`.
    """
    check_type(event_type)
    if not isinstance(description, Unset):
        one_line("description", description, chars_min=0, chars_max=DESCRIPTION_CHARS_MAX)
    document = json_schemas.check(schema) if isinstance(schema, bytes) else None  # before the lock: it takes time
    key = {**owner._asdict(), "type": event_type}
    with connection.transaction():
        changes.lock(connection, owner)
        before = _find(connection, key)
        created = before is None or before.deleted
        told = description if not isinstance(description, Unset) else ("" if before is None or before.deleted else before.description)
        changed = [] if not created and before is not None and told == before.description else ["description"]
        if not isinstance(schema, Unset) and (before is None or schema != before.schema):
            changed.append("schema")
        if not created and not changed:
            return Change(_get(connection, owner, event_type), created=False, warnings=[], revocation_version=None)
        _within_limits(connection, key, schema if isinstance(schema, bytes) else b"")
        connection.execute(load("access", "upsert_event_type"), {**key, "description": told})
        warnings: list[Warned] = []
        if "schema" in changed and not isinstance(schema, Unset):
            version = None if schema is None else _version_of(connection, key, schema)
            connection.execute(load("access", "enforce_event_type_schema"), {**key, "version": version})
            if document is not None and before is not None and not created:
                warnings = _warnings(before.schema, document)
        after = _get(connection, owner, event_type)
        audit.record(
            connection,
            actor=actor,
            action="event_type.created" if created else "event_type.changed",
            organization=owner.organization,
            target=event_type,
            detail={"mode": owner.mode, "changed": changed, "description": told, "schema_version": after.schema_version},
        )
        return Change(after, created, warnings, epoch.raise_version(connection))


def get(connection: Connection[Any], owner: Owner, event_type: str) -> EventType:
    """Raises `NotThere`: also for a deleted type."""
    return _get(connection, owner, event_type)


def list_page(connection: Connection[Any], owner: Owner, *, after: str = "", limit: int = PAGE_MAX) -> tuple[list[EventType], bool]:
    """Types by name from behind `after`, without their schemas, and whether there are more."""
    wanted = min(limit, PAGE_MAX)
    rows = connection.execute(load("access", "list_event_types"), {**owner._asdict(), "after": after, "limit": wanted + 1}).fetchall()
    return [EventType._make(row[:6]) for row in rows[:wanted]], len(rows) > wanted


def versions(
    connection: Connection[Any], owner: Owner, event_type: str, *, before: int = _INTEGER_MAX, limit: int = VERSIONS_PAGE_MAX
) -> tuple[list[Version], bool]:
    """Every schema the type ever had below version `before`, newest first, and whether there are more. Also of a deleted type.

    Raises `NotThere` for a type that never was.
    """
    key = {**owner._asdict(), "type": event_type}
    if _find(connection, key) is None:
        raise _not_there(event_type)
    wanted = min(limit, VERSIONS_PAGE_MAX)
    rows = connection.execute(load("access", "list_event_type_schemas"), {**key, "before": before, "limit": wanted + 1}).fetchall()
    return [Version(row[0], bytes(row[1]), bytes(row[2]), row[3]) for row in rows[:wanted]], len(rows) > wanted


def delete(connection: Connection[Any], owner: Owner, event_type: str, *, actor: str) -> int:
    """Events of the type are not checked any more; returns the revocation version. Raises `NotThere`, `TooManyChanges`."""
    key = {**owner._asdict(), "type": event_type}
    with connection.transaction():
        changes.lock(connection, owner)
        before = _get(connection, owner, event_type)
        _slow_enough(connection, owner.organization)
        connection.execute(load("access", "delete_event_type"), key)
        audit.record(
            connection,
            actor=actor,
            action="event_type.deleted",
            organization=owner.organization,
            target=event_type,
            detail={"mode": owner.mode, "schema_version": before.schema_version},
        )
        return epoch.raise_version(connection)


class _Row(NamedTuple):
    type: str
    description: str
    schema_version: int | None
    schema: bytes | None
    created_at: datetime
    updated_at: datetime
    deleted: bool


def _find(connection: Connection[Any], key: dict[str, Any]) -> _Row | None:
    row = connection.execute(load("access", "find_event_type"), key).fetchone()
    return None if row is None else _Row._make((*row[:3], None if row[3] is None else bytes(row[3]), *row[4:]))


def _get(connection: Connection[Any], owner: Owner, event_type: str) -> EventType:
    row = _find(connection, {**owner._asdict(), "type": event_type})
    if row is None or row.deleted:
        raise _not_there(event_type)
    return EventType._make(row[:6])


def _not_there(event_type: str) -> NotThere:
    shown = event_type if event_type.isprintable() and len(event_type) <= EVENT_TYPE_CHARS_MAX else "of this name"
    return NotThere(f"there is no event type {shown} in this organization and mode: list them to see which there are")


def _within_limits(connection: Connection[Any], key: dict[str, Any], schema: bytes) -> None:
    _slow_enough(connection, key["organization"])
    row = connection.execute(load("access", "measure_event_types"), key).fetchone() or (0, 0, 0)
    if row[0] >= TYPES_MAX or row[1] >= TYPES_EVER_MAX:
        raise LimitReached(
            f"there may be {TYPES_MAX} event types, and {TYPES_EVER_MAX} with deleted ones: use one for several kinds of events"
        )
    if row[2] + len(schema) > SCHEMAS_BYTES_MAX:
        raise LimitReached(f"the schemas of all event types may have {SCHEMAS_BYTES_MAX} bytes together: make some smaller")


def _slow_enough(connection: Connection[Any], organization: str) -> None:
    changes.check_pace(connection, organization, actions="event_type.", what="event types", per_minute_max=CHANGES_PER_MINUTE_MAX)


def _version_of(connection: Connection[Any], key: dict[str, Any], schema: bytes) -> int:
    """The version under which `schema` is kept: the newest one's if it is the same text, else the next."""
    digest = hashlib.sha256(schema).digest()
    row = connection.execute(load("access", "latest_event_type_schema"), key).fetchone()
    if row is not None and bytes(row[1]) == digest:
        return int(row[0])
    version = 1 if row is None else int(row[0]) + 1
    if version > VERSIONS_MAX:
        raise LimitReached(f"a type may have {VERSIONS_MAX} versions of its schema: use a new type")
    connection.execute(load("access", "insert_event_type_schema"), {**key, "version": version, "schema": schema, "sha256": digest})
    return version


def _warnings(old: bytes | None, new: Document) -> list[Warned]:
    if old is None:
        return [Warned("", "payloads of this type were not checked before")]
    try:
        return compatibility.changes(json_schemas.parse(old), new)
    except SchemaError:  # taken by a version of this program with other rules
        return [Warned("", "the schema before this one cannot be compared")]
