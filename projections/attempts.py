"""The delivery fold: plans, what they hold back, and attempts as journalled. The first plan of an event and the first record of an
attempt stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.columns import columns
from projections.fold import Connection, Decoded, Fold, decoder
from projections.offsets import moving
from runtime.sql import load
from schemas import codec
from schemas.deliveries import Dead, JournalRecord, Planned, Retry
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS


class Plan(NamedTuple):
    """A row of `plans` or of `held`, without its partition: one endpoint of a plan."""

    organization: str
    mode: str
    event_id: str
    endpoint_id: str
    journal_offset: int


class Attempt(NamedTuple):
    """A row of `attempts`, without its partition."""

    organization: str
    mode: str
    event_id: str
    endpoint_id: str
    attempt: int
    journal_offset: int
    outcome: str
    started_at_ms: int
    duration_ms: int
    worker: str
    status: int | None
    error: str | None
    response: str | None
    next_kind: str | None
    next_at_ms: int | None
    dead_reason: str | None


class Rows(NamedTuple):
    plans: list[Plan]
    held: list[Plan]
    attempts: list[Attempt]


def fold(records: Iterable[tuple[Record, JournalRecord]]) -> Rows:
    planned: dict[tuple[str, str, str], tuple[list[Plan], list[Plan]]] = {}
    attempts: dict[tuple[str, str, str, str, int], Attempt] = {}
    for record, entry in records:
        if isinstance(entry, Planned):
            planned.setdefault(
                (entry.organization, entry.mode, entry.event_id),
                (_rows(entry, entry.endpoint_ids, record.offset), _rows(entry, entry.held, record.offset)),
            )
            continue
        retry = entry.next if isinstance(entry.next, Retry) else None
        dead = entry.next if isinstance(entry.next, Dead) else None
        row = Attempt(
            entry.organization, entry.mode, entry.event_id, entry.endpoint_id, entry.attempt, record.offset, entry.outcome,
            entry.started_at_ms, entry.duration_ms, entry.worker, entry.status, entry.error, entry.response,
            "retry" if retry else "dead" if dead else None, retry.not_before_ms if retry else None, dead.reason if dead else None,
        )  # fmt: skip
        attempts.setdefault(row[:5], row)
    return Rows(
        [plan for key in sorted(planned) for plan in planned[key][0]],
        [held for key in sorted(planned) for held in planned[key][1]],
        [attempts[key] for key in sorted(attempts)],
    )


def _rows(entry: Planned, endpoint_ids: Iterable[str], offset: int) -> list[Plan]:
    return [Plan(entry.organization, entry.mode, entry.event_id, endpoint, offset) for endpoint in sorted(set(endpoint_ids))]


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, DELIVERIES_ATTEMPTS, partition, old, new):
        plans, held, attempts = fold(decoded.records)
        if plans:
            await connection.execute(load("projections", "insert_plans"), {**columns(Plan._fields, plans), "partition": partition})
        if held:
            await connection.execute(load("projections", "insert_held"), {**columns(Plan._fields, held), "partition": partition})
        if attempts:
            await connection.execute(load("projections", "insert_attempts"), {**columns(Attempt._fields, attempts), "partition": partition})


FOLD: Final = Fold(DELIVERIES_ATTEMPTS, decoder(codec.journal), write)
