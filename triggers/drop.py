"""Setting a dead letter or a rejected record aside: a record on `lifecycle` and a row of the audit log; the record itself stays."""

from __future__ import annotations

from typing import Final

from access import audit
from projections.trail import At
from runtime.append import append
from runtime.clock import Clock
from runtime.kafka import AppendError
from runtime.postgres import connect
from runtime.settings import Settings
from runtime.topics import admin, generation
from schemas import codec
from schemas.codec import STANDARD_HEADERS
from schemas.events import SCHEMA_VERSION
from schemas.lifecycle import Dropped, LetterOf
from schemas.topics import LIFECYCLE

_NOBODY: Final = b"-"


def drop(
    settings: Settings, clock: Clock, at: At, *, organization: str | None, actor: str, why: str | None, letter: LetterOf | None = None
) -> Dropped:
    """Decide that nothing is done about the record at `at`. `organization`: whose it is, where that is known.
    `letter`: what it is about, if it is a dead letter.

    The audit row is written first and committed last: without it nothing is dropped, and a crash between leaves the decision in the log,
    which names who made it. Raises `RuntimeError` where Kafka did not confirm it,
    `confluent_kafka.KafkaException`, `psycopg.Error`.
    """
    client = admin(settings.kafka)
    decision = Dropped(
        v=SCHEMA_VERSION, topic=at.topic, generation=generation(client), partition=at.partition, offset=at.offset, actor=actor,
        at_ms=clock.now_ms(), why=why, letter=letter,
    )  # fmt: skip
    with connect(settings.postgres, application="drop") as connection:
        audit.record(
            connection, actor=actor, action="record.dropped", organization=organization, target=f"{at.topic}[{at.partition}]@{at.offset}",
            detail={"why": why},
        )  # fmt: skip
        key = _NOBODY if organization is None else organization.encode()
        try:
            append(settings.kafka, LIFECYCLE, codec.encode(decision), key, headers=STANDARD_HEADERS, partition=at.partition)
        except AppendError as error:
            raise RuntimeError(f"it is not known whether {at.partition}@{at.offset} was dropped ({error.detail}): do it again") from error
    return decision
