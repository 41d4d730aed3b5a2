"""Retention, applied: from days to marks on `lifecycle`. The only place where the clock comes in; folds know marks alone.

A mark moves in steps of a bounded number of events, and each is waited for: the fold deletes in the transaction that moves the mark, and
acknowledgements of the partition wait for it. Where this is stopped, what was moved holds, and the next run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit
from access.organizations import Organization
from projections.lifecycle import first_id
from runtime.append import append
from runtime.clock import Clock
from runtime.kafka import AppendError
from runtime.settings import RetentionSettings, Settings
from runtime.sql import load
from schemas import codec
from schemas.codec import STANDARD_HEADERS
from schemas.events import MODES, SCHEMA_VERSION, Mode
from schemas.ids import EventId, event_time_ms
from schemas.keys import partition_of, record_key
from schemas.lifecycle import RetentionMoved
from schemas.topics import LIFECYCLE

#: Marks stand at whole hours, so that running again soon appends nothing.
_GRAIN_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_LOOK_S: Final = 0.05


class Retention(NamedTuple):
    """How many days an organization's events stay readable (None: for ever), and whether that is its own number or its plan's."""

    days: int | None
    own: bool


class Due(NamedTuple):
    """What goes of an organization and mode: events of the inbox and rows of duplicates with an id older than `before_ms`."""

    organization: Organization
    mode: Mode
    days: int
    before_ms: int
    events: int
    duplicates: int


def of(organization: Organization, plans: RetentionSettings) -> Retention:
    own = organization.retention_days
    days = getattr(plans, f"{organization.plan}_days") if own is None else own
    return Retention(days or None, own is not None)


def mark_ms(days: int, now_ms: int) -> int:
    """The time, at a whole hour, before which nothing is kept. Pure."""
    return max(0, now_ms - days * _DAY_MS) // _GRAIN_MS * _GRAIN_MS


def due(connection: Connection[Any], settings: Settings, clock: Clock, organizations: list[Organization]) -> Iterator[Due]:
    """What goes now. Raises `psycopg.Error`."""
    for organization in organizations:
        days = of(organization, settings.retention).days
        if days is None:
            continue
        before_ms = mark_ms(days, clock.now_ms())
        for mode in MODES:
            values = {"organization": organization.id, "mode": mode, "before": first_id(before_ms)}
            events, duplicates = connection.execute(load("triggers", "retention_due"), values).fetchone() or (0, 0)
            if events or duplicates:
                yield Due(organization, mode, days, before_ms, events, duplicates)


def apply(connection: Connection[Any], settings: Settings, clock: Clock, due: Due, *, actor: str, told: Callable[[int], None]) -> int:
    """Move the mark of one organization and mode, and wait until its fold has deleted what is below. Returns the records appended.

    The audit row is written first and committed last. `told` hears of each record with the mark it set (Unix ms). `connection` is in
    autocommit. Raises `RuntimeError` where Kafka did not confirm a record or its fold did not come to it, `psycopg.Error`.
    """
    owner = due.organization.id
    detail = {"mode": due.mode, "days": due.days, "before_ms": due.before_ms, "events": due.events, "duplicates": due.duplicates}
    records, at_ms = 0, -1
    while at_ms < due.before_ms:
        at_ms = _step(connection, settings, due, at_ms)
        moved = RetentionMoved(
            v=SCHEMA_VERSION, organization=owner, mode=due.mode, before_ms=at_ms, actor=actor, at_ms=clock.now_ms()
        )  # fmt: skip
        with connection.transaction():
            if records == 0:
                audit.record(connection, actor=actor, action="retention.applied", organization=owner, target=owner, detail=detail)
            _append(settings, moved)
        _folded(connection, settings, moved)
        records += 1
        told(at_ms)
    return records


def _step(connection: Connection[Any], settings: Settings, due: Due, at_ms: int) -> int:
    """The next mark: as far as a bounded number of events go. Ids of one millisecond go together."""
    values = {
        "organization": due.organization.id, "mode": due.mode, "before": first_id(due.before_ms),
        "events": settings.retention.step_events_max,
    }  # fmt: skip
    row = connection.execute(load("triggers", "retention_step"), values).fetchone()
    return due.before_ms if row is None else min(due.before_ms, max(event_time_ms(EventId(row[0])), at_ms + 1))


def _append(settings: Settings, moved: RetentionMoved) -> None:
    key = record_key(moved.organization)
    partition = partition_of(key, settings.kafka.partitions)
    try:
        append(settings.kafka, LIFECYCLE, codec.encode(moved), key, headers=STANDARD_HEADERS, partition=partition)
    except AppendError as error:
        raise RuntimeError(
            f"it is not known whether the mark of {moved.organization} was moved ({error.detail}): run this again"
        ) from error


def _folded(connection: Connection[Any], settings: Settings, moved: RetentionMoved) -> None:
    """Until the fold's own table says so."""
    values = {"organization": moved.organization, "mode": moved.mode, "mark": first_id(moved.before_ms)}
    deadline_s = time.monotonic() + settings.retention.step_timeout_s
    while connection.execute(load("triggers", "retention_folded"), values).fetchone() is None:
        if time.monotonic() > deadline_s:
            raise RuntimeError(
                f"the mark of {moved.organization} is on {LIFECYCLE} and nothing folded it for {settings.retention.step_timeout_s:g} s: is "
                "`triggers process project` running? What is left goes with the next run"
            )
        time.sleep(_LOOK_S)
