"""Every topic, declared once: name, key, value, partitions, retention, cleanup, consumer groups.

The admin step (`runtime.topics`) creates what is declared here and refuses what differs. Nothing else creates topics: brokers run
with `auto.create.topics.enable=false`, Faust with `topic_allow_declare=False`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

FOREVER: Final = -1
_DAY_MS: Final = 86_400_000

EVENTS_INGESTED: Final = "events.ingested"
EVENTS_ACCEPTED: Final = "events.accepted"
EVENTS_DUPLICATES: Final = "events.duplicates"
EVENTS_REJECTED: Final = "events.rejected"
INBOX_ACKS: Final = "inbox.acks"
DELIVERIES_ATTEMPTS: Final = "deliveries.attempts"
DELIVERIES_DEAD: Final = "deliveries.dead"
DELIVERIES_FIFO: Final = "deliveries.fifo"
DELIVERIES_REQUESTS: Final = "deliveries.requests"
LIFECYCLE: Final = "lifecycle"
_RETRY: Final = "deliveries.retry."

#: Beginning of the name of a topic that is there while a restore is not done, and holds nothing: no process begins beside it.
RESTORING: Final = "triggers.restoring."
#: Of such a topic while partitions are being grown and nothing has been replaced yet (ADR 17).
GROWING: Final = f"{RESTORING}growing."

#: Faust derives the changelog's name from app id and table name; both are fixed here.
DEDUP_APP: Final = "dedup"
DEDUP_TABLE: Final = "seen"
DEDUP_CHANGELOG: Final = f"{DEDUP_APP}-{DEDUP_TABLE}-changelog"

PROJECT_APP: Final = "project"
DELIVERY_GROUP: Final = "delivery"

#: The topic generation, part of every inbox position, counts how often the log was moved to topics with more partitions (ADR 17). Which
#: one the topics are of is said by the name of an empty topic that begins with this; without one it is the first.
FIRST_GENERATION: Final = 1
_GENERATION: Final = "triggers.generation."

#: Largest record batch by topic. They grow along the path of an event, so what one topic took the next can always take: an accepted
#: record, a retry or a dead letter wraps an ingested one, a rejected record is any of them with headers added.
INGESTED_BYTES_MAX: Final = 1_000_000
DERIVED_BYTES_MAX: Final = 1_500_000
MESSAGE_BYTES_MAX: Final = 1_600_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One declared topic. `groups` lists every consumer group that reads it; `seed_groups` those that start at offset 0 when new."""

    name: str
    value: str
    key: Literal["organization", "table key", "endpoint", "as found"] = "organization"
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    retention_ms: int = FOREVER
    timestamp: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    groups: tuple[str, ...] = ()
    seed_groups: tuple[str, ...] = ()
    bytes_max: int = DERIVED_BYTES_MAX
    extra: dict[str, str] = field(default_factory=dict)

    def config(self, *, min_insync_replicas: int) -> dict[str, str]:
        """The topic's configuration as Kafka names it. Times in ms."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "message.timestamp.type": self.timestamp,
            "max.message.bytes": str(self.bytes_max),
            "min.insync.replicas": str(min_insync_replicas),
            "unclean.leader.election.enable": "false",
            **self.extra,
        }


def delay_name(delay_s: float) -> str:
    """`0.5` → `500ms`, `30` → `30s`, `120` → `2m`, `3600` → `1h`: the largest unit that leaves a whole number."""
    ms = round(delay_s * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def retry_topic(delay_s: float) -> str:
    return f"{_RETRY}{delay_name(delay_s)}"


def is_retry_topic(name: str) -> bool:
    """Of whatever delay."""
    return name.startswith(_RETRY)


_FIXED: Final[tuple[Topic, ...]] = (
    Topic(EVENTS_INGESTED, "schemas.events.Ingested", timestamp="LogAppendTime", bytes_max=INGESTED_BYTES_MAX, groups=(DEDUP_APP,)),
    Topic(EVENTS_ACCEPTED, "schemas.events.Accepted", groups=(PROJECT_APP, DELIVERY_GROUP), seed_groups=(DELIVERY_GROUP,)),
    Topic(EVENTS_DUPLICATES, "schemas.events.Duplicate", groups=(PROJECT_APP,)),
    Topic(
        EVENTS_REJECTED, "raw bytes; origin and reason in headers", key="as found", bytes_max=MESSAGE_BYTES_MAX, retention_ms=30 * _DAY_MS
    ),
    Topic(INBOX_ACKS, "schemas.events.Ack", timestamp="LogAppendTime", bytes_max=INGESTED_BYTES_MAX, groups=(PROJECT_APP,)),
    Topic(DELIVERIES_ATTEMPTS, "schemas.deliveries.JournalRecord", groups=(PROJECT_APP,)),
    Topic(DELIVERIES_DEAD, "schemas.deliveries.DeadLetter", retention_ms=30 * _DAY_MS),
    Topic(
        DELIVERIES_FIFO,
        "schemas.deliveries.FifoPosition",
        key="endpoint",
        cleanup="compact",
        # Read whole by each new owner, so it is kept short. A worker that was stopped may write an older position late: the highest wins,
        # and is written again before compaction may take it away (`delivery.fifo`).
        extra={"min.compaction.lag.ms": str(_DAY_MS // 24), "segment.ms": str(_DAY_MS // 24), "segment.bytes": "16777216"},
    ),
    Topic(
        DELIVERIES_REQUESTS,
        "schemas.deliveries.RequestRecord",
        retention_ms=14 * _DAY_MS,
        groups=(DELIVERY_GROUP,),
        seed_groups=(DELIVERY_GROUP,),
    ),
    Topic(LIFECYCLE, "schemas.lifecycle.LifecycleRecord", groups=(PROJECT_APP,)),
    Topic(
        DEDUP_CHANGELOG,
        "processors.dedup.Marker",
        key="table key",
        cleanup="compact,delete",
        retention_ms=8 * _DAY_MS,
        groups=(),
        # Compaction keeps the last write of a key; a worker that was stopped may write an older marker late. Recovery lets the
        # highest position win, so the newer one must still be there to be seen.
        extra={"min.compaction.lag.ms": str(_DAY_MS // 24), "segment.ms": str(_DAY_MS // 8)},
    ),
)


def declared(delays_s: Sequence[float]) -> tuple[Topic, ...]:
    """All topics of a system whose delay topics are `delays_s` (seconds)."""
    retries = (
        Topic(
            retry_topic(delay),
            "schemas.deliveries.RetryTask",
            retention_ms=14 * _DAY_MS,
            groups=(DELIVERY_GROUP,),
            seed_groups=(DELIVERY_GROUP,),
        )
        for delay in delays_s
    )
    return (*_FIXED, *retries)


def generation_topic(generation: int) -> str:
    """The topic that is there when the others are of this generation, the second or a later one."""
    return f"{_GENERATION}{generation}"


def generation_of(here: Iterable[str]) -> int:
    """Which generation the topics of a cluster with these names are of."""
    numbers = [name.removeprefix(_GENERATION) for name in here if name.startswith(_GENERATION)]
    return max((int(number) for number in numbers if number.isdecimal()), default=FIRST_GENERATION)


def names(topics: Iterable[Topic]) -> list[str]:
    return [topic.name for topic in topics]
