"""The admin step that makes topics what `schemas.topics` declares. Idempotent; refuses what would break a promise.

New groups that must not meet "no offset" (delivery runs with `auto.offset.reset=error`, so that lost offsets never re-send history)
get offset 0 committed here, while group and topic are both new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from schemas.topics import RESTORING, Topic, declared, generation_of

_REQUEST_TIMEOUT_S: Final = 30.0
#: LOG_EMERG of syslog(3), which librdkafka does not use.
_LOG_NOTHING: Final = 0
#: What is said of a topic until its leaders are known.
_COMING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION})
_PAUSE_S: Final = 0.1
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


def restoring(client: AdminClient, timeout_s: float = _REQUEST_TIMEOUT_S) -> str | None:
    """The mark of a restore that is not done, or None. Raises `confluent_kafka.KafkaException`."""
    return next((name for name in client.list_topics(timeout=timeout_s).topics if name.startswith(RESTORING)), None)


def generation(client: AdminClient, timeout_s: float = _REQUEST_TIMEOUT_S) -> int:
    """Which generation the topics are of: fixed when a process begins. Raises `confluent_kafka.KafkaException`."""
    return generation_of(client.list_topics(timeout=timeout_s).topics)


def members(client: AdminClient, groups: Sequence[str]) -> dict[str, int]:
    """How many workers each group has. Raises `confluent_kafka.KafkaException`."""
    answers = client.describe_consumer_groups(list(groups), request_timeout=_REQUEST_TIMEOUT_S) if groups else {}
    return {group: len(answer.result(_REQUEST_TIMEOUT_S).members) for group, answer in answers.items()}


def ends(client: AdminClient, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Where each (topic, partition) ends, by one request to each broker. Raises `confluent_kafka.KafkaException`."""
    return _offsets(client, places, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def ends_of_new(client: AdminClient, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """As `ends`, of topics that were made just now: their leaders are waited for. Raises `confluent_kafka.KafkaException`."""
    asked, deadline_s = list(places), time.monotonic() + _REQUEST_TIMEOUT_S
    while True:
        client.list_topics(timeout=_REQUEST_TIMEOUT_S)  # all of them: librdkafka remembers those it was told are unknown
        try:
            return ends(client, asked)
        except KafkaException as error:
            if error.args[0].code() not in _COMING or time.monotonic() > deadline_s:
                raise
            time.sleep(_PAUSE_S)


def begins(client: AdminClient, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """The first offset that each (topic, partition) still has. Raises `confluent_kafka.KafkaException`."""
    return _offsets(client, places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def _offsets(client: AdminClient, places: Iterable[tuple[str, int]], which: OffsetSpec) -> dict[tuple[str, int], int]:
    asked = {TopicPartition(*place): which for place in places}
    answers = client.list_offsets(asked, request_timeout=_REQUEST_TIMEOUT_S) if asked else {}
    return {(tp.topic, tp.partition): int(answer.result(_REQUEST_TIMEOUT_S).offset) for tp, answer in answers.items()}


def delete_before(client: AdminClient, offsets: Mapping[tuple[str, int], int]) -> None:
    """Delete the records of each (topic, partition) below an offset. Raises `confluent_kafka.KafkaException`."""
    if offsets:
        asked = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        for answer in client.delete_records(asked, request_timeout=_REQUEST_TIMEOUT_S).values():
            answer.result(_REQUEST_TIMEOUT_S)


def configure(client: AdminClient, topic: str, config: Mapping[str, str]) -> None:
    """Set some of a topic's settings and leave the others. Raises `confluent_kafka.KafkaException`."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client.incremental_alter_configs([resource], request_timeout=_REQUEST_TIMEOUT_S)[resource].result(_REQUEST_TIMEOUT_S)


def create(client: AdminClient, name: str, *, partitions: int, replication_factor: int, config: Mapping[str, str]) -> bool:
    """Whether it was made; False where it is there already. Raises `confluent_kafka.KafkaException`."""
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replication_factor, config=dict(config))
    made = client.create_topics([topic], operation_timeout=_REQUEST_TIMEOUT_S, request_timeout=_REQUEST_TIMEOUT_S)
    try:
        made[name].result(_REQUEST_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True


def mark(client: AdminClient, name: str, *, replication_factor: int) -> None:
    """An empty topic that says something by its name, unless it is there. Brokers show it when this returns, and with it all that was made
    before it. Raises `confluent_kafka.KafkaException`, `TimeoutError`."""
    create(client, name, partitions=1, replication_factor=replication_factor, config={})
    _wait_until(lambda here: name in here, client, f"topic {name} was made and is not shown")


def delete(client: AdminClient, names: Sequence[str]) -> None:
    """Those that are there; brokers show none of them when this returns. Raises `confluent_kafka.KafkaException`, `TimeoutError`."""
    # All are asked for: what was made just now may not be shown yet, and would stay.
    answers = client.delete_topics(list(names), operation_timeout=_REQUEST_TIMEOUT_S, request_timeout=_REQUEST_TIMEOUT_S) if names else {}
    for answer in answers.values():
        try:
            answer.result(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    _wait_until(lambda here: not here & {*names}, client, f"topics are still there ({', '.join(names[:3])})")


def _wait_until(shown: Callable[[set[str]], bool], client: AdminClient, what: str) -> None:
    """The controller answers before brokers have heard of it."""
    deadline_s = time.monotonic() + _REQUEST_TIMEOUT_S
    while not shown({*client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics}):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} after {_REQUEST_TIMEOUT_S:g} s: run it again")
        time.sleep(_PAUSE_S)


def refuse_while_restoring(client: AdminClient) -> None:
    """What a restore is about to make must not be there already. Raises `TopicMismatch`."""
    _refuse_marked(client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics)


def refuse_elsewhere(kafka: KafkaSettings, here: Mapping[str, Any], name: str) -> None:
    """For a command that is about to put a record on a topic: `here` is what the broker shows of topics. With another number of partitions
    the record would stand where nobody looks for it. Raises `TopicMismatch`."""
    _refuse_marked(here)
    if name in here:
        _guard_partitions(name, len(here[name].partitions), kafka.partitions)


def _refuse_marked(here: Iterable[str]) -> None:
    if (mark := next((name for name in here if name.startswith(RESTORING)), None)) is not None:
        raise TopicMismatch(
            f"a restore, or a move to more partitions, is not done (topic {mark}): the same command (`triggers restore`, "
            "`triggers topics grow`) goes on where it was stopped, and makes the topics"
        )


def ensure(kafka: KafkaSettings, delays_s: Sequence[float], *, by_restore: bool = False) -> list[str]:
    """Create what is missing, check what is there, commit first offsets. Returns the names created.

    Raises `TopicMismatch` for a changed partition count or a setting that dedup, order or durability rest on, and while a restore is not
    done, unless called `by_restore`; `GroupRunning` where a group that needs first offsets has members; `confluent_kafka.KafkaException`
    when the broker refuses or does not answer.
    """
    topics = declared(delays_s)
    client = admin(kafka)
    if not by_restore:
        refuse_while_restoring(client)
    existing = client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    missing = [topic for topic in topics if topic.name not in existing]
    for topic in topics:
        if topic.name in existing:
            _guard_partitions(topic.name, len(existing[topic.name].partitions), kafka.partitions)
    created = _create(client, kafka, missing)
    _guard_config(client, [topic for topic in topics if topic.name not in created])
    for group in sorted({group for topic in topics for group in topic.seed_groups}):
        _seed(kafka, group, [topic.name for topic in topics if group in topic.seed_groups], created)
    return created


def _guard_partitions(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise TopicMismatch(
            f"topic {name} has {found} partitions, TRIGGERS_KAFKA__PARTITIONS says {wanted}. An organization lives in one "
            f"partition for the life of a topic generation: set it back to {found}; growing means a new generation (`triggers topics grow`)"
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
