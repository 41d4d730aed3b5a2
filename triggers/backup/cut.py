"""The cut: where the groups stand and where each partition ends, so that the backup is a state the system could have crashed in.

Effects are looked at before their causes: first what the groups have committed, then the topics, those that are written last in an event's
way first, and the control plane last of all. Whatever is in the cut had its cause in the log before, so its cause is in the cut too. Causes
whose effects came later are in it without them, as after a crash, and are worked on again. What is below an end never changes, so reading
may take as long as it takes.

Two places need more than an order:

* A marker of the dedup table may take the place of another only once dedup has committed past that one (ADR 3). Offsets that were committed
  and a changelog that was looked at later could show the new marker and a commit before the old one's record. So the commits are looked at
  on both sides of the changelog, and the cut is taken where they did not move.
* Delay topics lead to each other. A record stays on one for the topic's delay, so the ends of all of them are taken together, within a
  time shorter than the shortest.

An operational event is appended before the dead letter it tells of; it may be in the cut without that, and is recognised when it is
made again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from projections.log_reader import Place, Range
from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings, Settings
from runtime.topics import admin, begins, ends
from schemas.topics import (
    DEDUP_APP,
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    INBOX_ACKS,
    LIFECYCLE,
    Topic,
    declared,
    generation_of,
    retry_topic,
)
from triggers.backup.manifest import Committed

_REQUEST_TIMEOUT_S: Final = 30.0
_TRIES: Final = 100
_PAUSE_S: Final = 0.05

#: Effects first. What is not named comes before the accepted events, which it follows from.
_BEFORE: Final = (EVENTS_REJECTED, DELIVERIES_FIFO, DELIVERIES_DEAD)
_BETWEEN: Final = (DELIVERIES_ATTEMPTS,)
_AFTER: Final = (EVENTS_DUPLICATES, INBOX_ACKS, EVENTS_ACCEPTED, EVENTS_INGESTED, LIFECYCLE)


class CutError(RuntimeError):
    """No cut can be taken. The text says what to do."""


class Cut(NamedTuple):
    """`topic_ids`: the broker's own names, which a topic that is made anew does not keep."""

    cluster: str
    generation: int
    topics: tuple[Topic, ...]
    topic_ids: dict[str, str]
    committed: list[Committed]
    ranges: dict[Place, Range]


def order(topics: Iterable[Topic], delays_s: Sequence[float]) -> list[tuple[str, ...]]:
    """Names in the order in which their ends are looked at; those of one tuple together. The changelog comes before all (see above)."""
    names = [topic.name for topic in topics if topic.name != DEDUP_CHANGELOG]
    retries = tuple(retry_topic(delay) for delay in delays_s)
    placed = {*_BEFORE, *retries, *_BETWEEN, *_AFTER}
    others = tuple(name for name in names if name not in placed)
    stages = [*((name,) for name in _BEFORE), retries, *((name,) for name in _BETWEEN), others, *((name,) for name in _AFTER)]
    return [stage for stage in stages if stage]


def take(settings: Settings) -> Cut:
    """Raises `CutError`, `confluent_kafka.KafkaException`."""
    kafka, delays_s = settings.kafka, settings.delivery.delays_s
    topics = declared(delays_s)
    client = admin(kafka)
    cluster, generation, ids = _known(client, topics, kafka)
    groups = sorted({group for topic in topics for group in topic.groups})
    read = {group: [topic.name for topic in topics if group in topic.groups] for group in groups}
    committed: list[Committed] = []
    for group in groups:
        if group != DEDUP_APP:
            committed += committed_by(kafka, group, read[group], range(kafka.partitions))
    markers, found = _markers(client, kafka, read[DEDUP_APP])
    committed += markers
    for stage in order(topics, delays_s):
        found.update(_ends(client, kafka, stage, within_s=min(delays_s) if len(stage) > 1 else None))
    kept = begins(client, found)
    ranges = {place: Range(kept[place], found[place]) for place in sorted(found)}
    for topic in topics:
        for number in range(kafka.partitions):
            if topic.retention_ms < 0 and topic.cleanup == "delete" and (begin := ranges[topic.name, number].begin):
                raise CutError(
                    f"{topic.name}[{number}] begins at offset {begin}: what was before is gone from a topic kept for ever, so that "
                    "nothing can be folded again from a backup of it. Use pg_dump, and copy the brokers' folders while they are stopped"
                )
    return Cut(cluster, generation, topics, ids, committed, ranges)


def _known(client: AdminClient, topics: Sequence[Topic], kafka: KafkaSettings) -> tuple[str, int, dict[str, str]]:
    found = client.list_topics(timeout=_REQUEST_TIMEOUT_S)
    for topic in topics:
        count = len(found.topics[topic.name].partitions) if topic.name in found.topics else 0
        if count != kafka.partitions:
            raise CutError(f"topic {topic.name} has {count} partitions and should have {kafka.partitions}: see what `triggers topics` says")
    described = client.describe_topics(TopicCollection([topic.name for topic in topics]), request_timeout=_REQUEST_TIMEOUT_S)
    ids = {name: str(answer.result(_REQUEST_TIMEOUT_S).topic_id) for name, answer in described.items()}
    return found.cluster_id or "", generation_of(found.topics), ids


def _markers(client: AdminClient, kafka: KafkaSettings, read: Sequence[str]) -> tuple[list[Committed], dict[Place, int]]:
    """Dedup's commits, and ends of the changelog at which they did not move."""
    committed: list[Committed] = []
    found: dict[Place, int] = {}
    left = set(range(kafka.partitions))
    for _ in range(_TRIES):
        before = committed_by(kafka, DEDUP_APP, read, left)
        now = ends(client, ((DEDUP_CHANGELOG, number) for number in left))
        after = {(one.topic, one.partition): one.offset for one in committed_by(kafka, DEDUP_APP, read, left)}
        moved = {number for (_, number), offset in after.items() if offset not in {o.offset for o in before if o.partition == number}}
        committed += [one for one in before if one.partition not in moved]
        found.update({place: end for place, end in now.items() if place[1] not in moved})
        left = moved
        if not left:
            return committed, found
        time.sleep(_PAUSE_S)
    raise CutError("dedup's commits move too fast to be looked at: run it again when there is less traffic")


def _ends(client: AdminClient, kafka: KafkaSettings, names: Sequence[str], *, within_s: float | None) -> dict[Place, int]:
    places = [(name, number) for name in names for number in range(kafka.partitions)]
    for _ in range(_TRIES):
        began_s = time.monotonic()
        found = ends(client, places)
        if within_s is None or time.monotonic() - began_s < within_s:
            return found
    raise CutError("the broker takes too long to say where the delay topics end: run it again when there is less traffic")


def committed_by(kafka: KafkaSettings, group: str, topics: Sequence[str], partitions: Collection[int]) -> list[Committed]:
    """What a group has committed; a partition without a commit is left out. The group is not joined."""
    consumer = Consumer({**client_config(kafka, "backup"), "group.id": group, "enable.auto.commit": False}, logger=LIBRDKAFKA_LOGGER)
    try:
        asked = [TopicPartition(topic, number) for topic in topics for number in sorted(partitions)]
        return [
            Committed(group=group, topic=tp.topic, partition=tp.partition, offset=tp.offset, metadata=tp.metadata or "")
            for tp in consumer.committed(asked, timeout=_REQUEST_TIMEOUT_S)
            if tp.offset >= 0
        ]
    finally:
        consumer.close()
