"""What happened to an event, for operators: from the folds where Postgres answers, completed from the log; from the log alone where not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException
from psycopg import Connection, IsolationLevel

from access.envelopes import key_id
from projections import queries
from projections.log_reader import LogError, Place
from projections.log_search import LogSearch, Progress, Span
from projections.trail import About, Accepted, Ack, At, Lost, Plan, Round, Trail
from runtime.postgres import FOLDS_SCHEMA, connect
from runtime.settings import Settings
from runtime.sql import load
from runtime.topics import admin, generation
from schemas.deliveries import Attempted, Dead, Retry
from schemas.events import SCHEMA_VERSION, First
from schemas.ids import EventId, OrganizationId
from schemas.keys import partition_of, record_key
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_INGESTED, FIRST_GENERATION, INBOX_ACKS

_NOT_ASKED: Final = "not asked"


@dataclass
class Explained:
    """A trail and where it comes from. `folds`, `log`: None where they were read, else why not. `generation`: of the topics.

    `erased`: whether an encrypted event's key is gone; None where Postgres could not tell, and for one in clear.
    """

    trail: Trail
    erased: bool | None = None
    folds: str | None = _NOT_ASKED
    log: str | None = None
    generation: int = FIRST_GENERATION
    spans: list[Span] = field(default_factory=list)
    #: The lowest event id that retention left to the organization and mode, where the folds say so.
    kept_from: EventId | None = None

    @property
    def found(self) -> bool:
        trail = self.trail
        return bool(trail.copies or trail.accepted or trail.lost or trail.rejected)

    @property
    def taken(self) -> bool:
        """Whether retention took it out of the folds: what is told of it comes from the log."""
        return self.kept_from is not None and self.trail.event_id < self.kept_from

    @property
    def whole(self) -> bool:
        """Whether everything that could tell of the event was read."""
        return self.log is None and all(span.whole for span in self.spans)


def explain(
    settings: Settings, event_id: EventId, organization: str | None, *, from_log: bool, within_ms: int, progress: Progress
) -> Explained:
    """Gather what there is. A server that is away is a reason in the answer, never an error.

    `within_ms`: how long after its id's time the event's ingested record is looked for.
    """
    told = Explained(Trail(event_id, organization))
    floors: dict[Place, int] = {}
    if not from_log:
        try:
            floors = _read_folds(settings, told)
            told.folds = None
        except psycopg.Error as error:
            told.trail = Trail(event_id, organization)
            told.folds = str(error).strip().splitlines()[0]
    search: LogSearch | None = None
    # The inbox keeps where an event was accepted first. Where it was moved to since, only the log says.
    moved = told.trail.accepted is not None and told.trail.accepted.first is not None
    trail = Trail(event_id, told.trail.organization) if moved else told.trail
    client = admin(settings.kafka)
    try:
        told.generation = generation(client, settings.operating.check_timeout_s)
        search = LogSearch(settings, trail, progress)
        _read_log(search, trail, {} if moved else floors, within_ms)
        if trail.accepted is not None:
            told.trail = trail
    except LogError as error:
        told.log = str(error)
    except KafkaException as error:
        told.log = f"Kafka: {error.args[0].str()}: is the broker up?"
    finally:
        if search is not None:
            told.spans = search.spans
            search.close()
    if told.folds is None and told.trail.organization is not None and told.trail.mode is not None:
        try:
            told.kept_from = _kept_from(settings, told.trail.organization, told.trail.mode)
        except psycopg.Error as error:
            told.folds = str(error).strip().splitlines()[0]
    told.erased = _erased(settings, told.trail)
    return told


def _erased(settings: Settings, trail: Trail) -> bool | None:
    if trail.about is None or trail.about.data_key is None:
        return None
    try:
        with connect(settings.postgres, application="explain") as connection:
            values = {"organization": trail.organization, "ids": [trail.about.data_key]}
            return connection.execute(load("access", "data_keys_by_id"), values).fetchone() is None
    except psycopg.Error:
        return None


def _kept_from(settings: Settings, organization: str, mode: str) -> EventId | None:
    """Asked last: whose an event is that the folds do not know any more, the log says. Raises `psycopg.Error`."""
    with connect(settings.postgres, search_path=FOLDS_SCHEMA, application="explain") as connection:
        row = connection.execute(load("projections", "kept_from"), {"organization": organization, "mode": mode}).fetchone()
    return None if row is None else EventId(row[0])


def _read_log(search: LogSearch, trail: Trail, floors: dict[Place, int], within_ms: int) -> None:
    if trail.copies:  # the folds know it: one record tells the rest, and nothing is judged any more
        at = min(trail.copies)
        search.read_copy(at.partition, at.offset)
    else:
        search.find(within_ms)
        search.judge()
    search.follow(floors)
    search.follow_up()


def _read_folds(settings: Settings, told: Explained) -> dict[Place, int]:
    """Rows into the trail; returns where the folds of acks and deliveries stand, so that only what is above is read from the log.

    All in one snapshot: rows and offsets belong together. Raises `psycopg.Error`.
    """
    trail = told.trail
    with connect(settings.postgres, search_path=FOLDS_SCHEMA, application="explain") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        found = connection.execute(
            load("projections", "locate_event"), {"event_id": trail.event_id, "organization": trail.organization}
        ).fetchone()
        if found is None:
            return {}
        trail.organization, trail.mode = found
        values = {"organization": trail.organization, "mode": trail.mode, "event_id": trail.event_id}
        partition = partition_of(record_key(OrganizationId(found[0])), settings.kafka.partitions)
        floors = {}
        for topic in (INBOX_ACKS, DELIVERIES_ATTEMPTS):
            standing = connection.execute(load("projections", "standing"), (topic, partition)).fetchone()
            floors[topic, partition], told.generation = (0, told.generation) if standing is None else standing
        if not _read_inbox(connection, trail, values, told.generation):
            _read_duplicate(connection, trail, values)
            return {}
        _read_deliveries(connection, trail, values)
        return floors


def _read_inbox(connection: Connection[Any], trail: Trail, values: dict[str, Any], generation: int) -> bool:
    row = connection.execute(load("projections", "find_event"), values).fetchone()
    if row is None:
        return False
    event = queries.Event._make(row)
    trail.copies[At(EVENTS_INGESTED, event.partition, event.ingested_offset)] = event.appended_at_ms
    first = None
    if event.generation < generation:
        first = First(generation=event.generation, partition=event.partition, offset=event.position, ingested_offset=event.ingested_offset)
    trail.accept(Accepted(At(EVENTS_ACCEPTED, event.partition, event.position), event.ingested_offset, first))
    trail.about = About(
        event.type,
        event.subject,
        event.occurred_at,
        event.received_at_ms,
        event.payload_bytes,
        event.payload_sha256,
        None,
        None if event.envelope is None else key_id(bytes(event.envelope)),
    )
    ack = connection.execute(load("projections", "explain_ack"), values).fetchone()
    if ack is not None:
        trail.acknowledge(Ack(At(INBOX_ACKS, ack[0], ack[1]), ack[2]))
    return True


def _read_duplicate(connection: Connection[Any], trail: Trail, values: dict[str, Any]) -> None:
    row = connection.execute(load("projections", "find_duplicate"), values).fetchone()
    if row is not None:
        lost = queries.Lost._make(row)
        trail.copies[At(EVENTS_INGESTED, lost.partition, lost.ingested_offset)] = lost.appended_at_ms
        trail.lost = Lost(lost.kind, lost.original_id, lost.ingested_offset, None)


def _read_deliveries(connection: Connection[Any], trail: Trail, values: dict[str, Any]) -> None:
    plans = connection.execute(load("projections", "explain_plan"), values).fetchall()
    if plans:
        at = At(DELIVERIES_ATTEMPTS, plans[0][0], plans[0][1])
        trail.planned(Plan(at, tuple(row[2] for row in plans if not row[3]), tuple(row[2] for row in plans if row[3])))
    for partition, offset, *asked in connection.execute(load("projections", "explain_rounds"), values):
        trail.asked(Round(At(DELIVERIES_ATTEMPTS, partition, offset), *asked))
    for row in connection.execute(load("projections", "explain_attempts"), values):
        trail.attempted(At(DELIVERIES_ATTEMPTS, row[0], row[1]), _attempted(values, *row[2:]))


def _attempted(
    values: dict[str, Any], endpoint_id: Any, attempt: int, outcome: Any, started_at_ms: int, duration_ms: int, worker: str,
    status: int | None, error: str | None, response: str | None, next_kind: str | None, next_at_ms: int | None, dead_reason: Any,
    of_round: Any, cause: Any,
) -> Attempted:  # fmt: skip
    """A row as the journal record it was folded from."""
    following: Retry | Dead | None = None
    if next_kind == "retry":
        following = Retry(attempt=attempt + 1, not_before_ms=next_at_ms or 0)
    elif next_kind == "dead":
        following = Dead(reason=dead_reason)
    return Attempted(
        v=SCHEMA_VERSION, endpoint_id=endpoint_id, attempt=attempt, outcome=outcome, started_at_ms=started_at_ms, duration_ms=duration_ms,
        worker=worker, status=status, error=error, response=response, next=following, round=of_round, cause=cause, **values,
    )  # fmt: skip
