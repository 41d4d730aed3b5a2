"""The delivery fold: plans, rounds that were asked for and attempts, as journalled. Of each the first record stays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.columns import columns
from projections.fold import Connection, Decoded, Fold, Rows, Table, decoder
from projections.offsets import moving
from runtime.sql import load
from schemas import codec
from schemas.deliveries import Dead, JournalRecord, Planned, Requested, Retry
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS


class Plan(NamedTuple):
    """A row of `plans`, without its partition: one endpoint of a plan. `held`: it was disabled and got nothing."""

    organization: str
    mode: str
    event_id: str
    endpoint_id: str
    journal_offset: int
    held: bool


class Round(NamedTuple):
    """A row of `rounds`, without its partition: of a delivery, one that was asked for."""

    organization: str
    mode: str
    event_id: str
    endpoint_id: str
    round: str
    cause: str
    journal_offset: int


class Attempt(NamedTuple):
    """A row of `attempts`, without its partition. `round` is empty in the first one, which the plan began."""

    organization: str
    mode: str
    event_id: str
    endpoint_id: str
    round: str
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
    cause: str | None


class Folded(NamedTuple):
    """Rows of a batch, each table's in the order of its key."""

    plans: list[Plan]
    rounds: list[Round]
    attempts: list[Attempt]


def fold(records: Iterable[tuple[Record, JournalRecord]]) -> Folded:
    planned: dict[tuple[str, str, str], list[Plan]] = {}
    rounds: dict[tuple[str, ...], Round] = {}
    attempts: dict[tuple[str, str, str, str, str, int], Attempt] = {}
    for record, entry in records:
        if isinstance(entry, Planned):
            # A plan without endpoints has no rows to be known by later: it must not win within a batch what it loses across two.
            if entry.endpoint_ids or entry.held or entry.fifo:
                planned.setdefault((entry.organization, entry.mode, entry.event_id), _plans(entry, record.offset))
            continue
        if isinstance(entry, Requested):
            asked = Round(
                entry.organization, entry.mode, entry.event_id, entry.endpoint_id, entry.round, entry.cause, record.offset
            )  # fmt: skip
            rounds.setdefault(asked[:5], asked)
            continue
        retry = entry.next if isinstance(entry.next, Retry) else None
        dead = entry.next if isinstance(entry.next, Dead) else None
        row = Attempt(
            entry.organization, entry.mode, entry.event_id, entry.endpoint_id, entry.round, entry.attempt, record.offset, entry.outcome,
            entry.started_at_ms, entry.duration_ms, entry.worker, entry.status, entry.error, entry.response,
            "retry" if retry else "dead" if dead else None, retry.not_before_ms if retry else None, dead.reason if dead else None,
            entry.cause,
        )  # fmt: skip
        attempts.setdefault(row[:6], row)
    plans = [plan for key in sorted(planned) for plan in planned[key]]
    return Folded(plans, [rounds[key] for key in sorted(rounds)], [attempts[key] for key in sorted(attempts)])


def _plans(entry: Planned, offset: int) -> list[Plan]:
    held = dict.fromkeys(sorted(entry.held), True)
    taken = dict.fromkeys(sorted([*entry.endpoint_ids, *entry.fifo]), False)
    return [
        Plan(entry.organization, entry.mode, entry.event_id, endpoint, offset, is_held) for endpoint, is_held in {**held, **taken}.items()
    ]


async def write(connection: Connection, partition: int, decoded: Decoded, old: int, new: int) -> None:
    """One transaction. Raises `projections.offsets.Fenced`."""
    async with moving(connection, DELIVERIES_ATTEMPTS, partition, old, new):
        plans, rounds, attempts = fold(decoded.records)
        if plans:
            await connection.execute(load("projections", "insert_plans"), {**columns(Plan._fields, plans), "partition": partition})
        if rounds:
            await connection.execute(load("projections", "insert_rounds"), {**columns(Round._fields, rounds), "partition": partition})
        if attempts:
            await connection.execute(load("projections", "insert_attempts"), {**columns(Attempt._fields, attempts), "partition": partition})


def rows_of(partition: int, decoded: Decoded, ingested_high: int) -> tuple[list[Rows], int]:
    plans, rounds, attempts = fold(decoded.records)
    return [
        Rows("plans", (*Plan._fields, "partition"), [(*row, partition) for row in plans]),
        Rows("rounds", (*Round._fields, "partition"), [(*row, partition) for row in rounds]),
        Rows("attempts", (*Attempt._fields, "partition"), [(*row, partition) for row in attempts]),
    ], ingested_high


_EVENT: Final = ("organization", "mode", "event_id")
TABLES: Final = (
    Table("plans", DELIVERIES_ATTEMPTS, "journal_offset", key=("event_id", "endpoint_id"), once=_EVENT, once_is_unique=False),
    Table(
        "rounds", DELIVERIES_ATTEMPTS, "journal_offset", key=("event_id", "endpoint_id", "round"), once=(*_EVENT, "endpoint_id", "round")
    ),
    Table(
        "attempts", DELIVERIES_ATTEMPTS, "journal_offset", key=("event_id", "endpoint_id", "round", "attempt"),
        once=(*_EVENT, "endpoint_id", "round", "attempt"),
    ),
)  # fmt: skip
FOLD: Final = Fold(DELIVERIES_ATTEMPTS, decoder(codec.journal), write, TABLES, rows_of)
