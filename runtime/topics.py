"""The admin step that makes topics what `schemas.topics` declares. Idempotent; refuses what would break a promise.

New groups that must not meet "no offset" (delivery runs with `auto.offset.reset=error`, so that lost offsets never re-send history)
get offset 0 committed here, while group and topic are both new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from schemas.topics import Topic, declared

_REQUEST_TIMEOUT_S: Final = 30.0
#: LOG_EMERG of syslog(3), which librdkafka does not use.
_LOG_NOTHING: Final = 0
#: Settings that must be as declared on a topic that is there already; others may be tuned by operators.
GUARDED_CONFIG: Final = ("cleanup.policy", "message.timestamp.type", "unclean.leader.election.enable")


class TopicMismatch(RuntimeError):
    """A topic exists but differs from its declaration in a way that would break a promise."""


class GroupRunning(RuntimeError):
    """First offsets cannot be given to a group with members: the broker takes them from its members only."""


def admin(kafka: KafkaSettings) -> AdminClient:
    """librdkafka's own lines are left out: they would reach a process's JSON log as plain text, and every call raises what went wrong."""
    return AdminClient(
        {"bootstrap.servers": kafka.bootstrap_servers, "client.id": "triggers-admin", "log_level": _LOG_NOTHING}, logger=None
    )


def ensure(kafka: KafkaSettings, delays_s: Sequence[float]) -> list[str]:
    """Create what is missing, check what is there, commit first offsets. Returns the names created.

    Raises `TopicMismatch` for a changed partition count or a setting that dedup, order or durability rest on; `GroupRunning` where a group
    that needs first offsets has members; `confluent_kafka.KafkaException` when the broker refuses or does not answer.
    """
    topics = declared(delays_s)
    client = admin(kafka)
    existing = client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    missing = [topic for topic in topics if topic.name not in existing]
    for topic in topics:
        if topic.name in existing:
            _guard_partitions(topic, len(existing[topic.name].partitions), kafka.partitions)
    created = _create(client, kafka, missing)
    _guard_config(client, [topic for topic in topics if topic.name not in created])
    for group in sorted({group for topic in topics for group in topic.seed_groups}):
        _seed(kafka, group, [topic.name for topic in topics if group in topic.seed_groups], created)
    return created


def _guard_partitions(topic: Topic, found: int, wanted: int) -> None:
    if found != wanted:
        raise TopicMismatch(
            f"topic {topic.name} has {found} partitions, TRIGGERS_KAFKA__PARTITIONS says {wanted}. An organization lives in one "
            f"partition for the life of a topic generation: set it back to {found}; growing means a new generation filled by replay"
        )


def _create(client: AdminClient, kafka: KafkaSettings, missing: Sequence[Topic]) -> list[str]:
    if not missing:
        return []
    requests = client.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=kafka.partitions,
                replication_factor=kafka.replication_factor,
                config=topic.config(min_insync_replicas=kafka.min_insync_replicas),
            )
            for topic in missing
        ],
        operation_timeout=_REQUEST_TIMEOUT_S,
        request_timeout=_REQUEST_TIMEOUT_S,
    )
    created = []
    for name, request in requests.items():
        try:
            request.result(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # two admin steps may run at once
                raise
        else:
            created.append(name)
    return created


def _guard_config(client: AdminClient, topics: Sequence[Topic]) -> None:
    if not topics:
        return
    wanted = {topic.name: topic.config(min_insync_replicas=1) for topic in topics}
    answers = client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in wanted], request_timeout=_REQUEST_TIMEOUT_S)
    for resource, answer in answers.items():
        found = answer.result(_REQUEST_TIMEOUT_S)
        for name in GUARDED_CONFIG:
            value, want = found[name].value, wanted[resource.name][name]
            if set(value.split(",")) != set(want.split(",")):
                raise TopicMismatch(f"topic {resource.name} has {name}={value}, it must be {want}: set it back with kafka-configs")


def _seed(kafka: KafkaSettings, group: str, topics: Sequence[str], created: Sequence[str]) -> None:
    """Offset 0 for a group that never committed on a partition, while that partition is new or still empty.

    Empty counts as new because this step may have died between creating a topic and seeding it.
    """
    consumer = Consumer({**client_config(kafka, "admin"), "group.id": group, "enable.auto.commit": False}, logger=LIBRDKAFKA_LOGGER)
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(kafka.partitions)]
        fresh = [
            TopicPartition(p.topic, p.partition, 0)
            for p in consumer.committed(partitions, timeout=_REQUEST_TIMEOUT_S)
            if p.offset < 0 and (p.topic in created or consumer.get_watermark_offsets(p, timeout=_REQUEST_TIMEOUT_S)[1] == 0)
        ]
        if fresh:
            _commit(consumer, group, fresh)
    finally:
        consumer.close()


def _commit(consumer: Consumer, group: str, fresh: Sequence[TopicPartition]) -> None:
    try:
        consumer.commit(offsets=list(fresh), asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:
            raise
        names = ", ".join(sorted({place.topic for place in fresh}))
        raise GroupRunning(
            f"{names} is new to the group {group}, and its workers are running: stop them everywhere, run `triggers topics` again, then "
            "start them (one that was killed leaves after its session time-out). Nothing is lost meanwhile"
        ) from None
