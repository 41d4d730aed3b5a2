"""What is different about topics from how they are declared, and what may be done about it. Nothing is changed before it was shown.

What a promise rests on is never changed here at all (partitions), or only by whoever asks for it by name (what deletes records or makes
a write less safe). Everything else is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from runtime.settings import KafkaSettings
from runtime.topics import GUARDED_CONFIG, TopicMismatch, admin, ensure, refuse_while_restoring
from schemas.topics import FOREVER, Topic, declared

#: `create`: it is not there. `set`: can be set. `dangerous`: only when asked for. `refused`: not from here.
Kind = Literal["create", "set", "dangerous", "refused"]

_LARGEST: Final = float("inf")
#: Settings that count, where a lower value deletes or refuses records, or promises less; -1 is no limit.
_NO_LOWER: Final[Mapping[str, str]] = {
    "retention.ms": "records that are older are deleted",
    "retention.bytes": "records above it are deleted",
    "max.message.bytes": "records that were taken until now are refused",
    "min.insync.replicas": "a 201 promises less",
    "min.compaction.lag.ms": "markers that recovery looks at may be gone",
}
_PARTITIONS: Final = "partitions"
_REPLICATION: Final = "replication factor"


class Difference(NamedTuple):
    """One thing of one topic. `found` is None for a topic that is not there; `why` says what a dangerous or refused one would do."""

    topic: str
    setting: str
    found: str | None
    wanted: str
    kind: Kind
    why: str

    @property
    def is_guarded(self) -> bool:
        """Whether processes may not run with it."""
        return self.kind in ("create", "refused") or self.setting in GUARDED_CONFIG


def compare(kafka: KafkaSettings, delays_s: Sequence[float], *, timeout_s: float) -> list[Difference]:
    """All differences, in the order of declaration. Raises `confluent_kafka.KafkaException`."""
    client = admin(kafka)
    existing = client.list_topics(timeout=timeout_s).topics
    topics = declared(delays_s)
    there = [topic for topic in topics if topic.name in existing]
    configs = _configs(client, there, timeout_s)
    found: list[Difference] = []
    for topic in topics:
        if topic.name not in existing:
            shape = f"{kafka.partitions} partitions, replication {kafka.replication_factor}"
            found.append(Difference(topic.name, "topic", None, shape, "create", ""))
            continue
        found += _shape(topic, existing[topic.name], kafka)
        found += _settings(topic, configs[topic.name], kafka)
    return found


def apply(kafka: KafkaSettings, delays_s: Sequence[float], differences: Sequence[Difference], *, dangerous: bool) -> list[Difference]:
    """Make those differences go that may go, create what is missing, give new groups their first offsets. Returns what was done.

    Raises `TopicMismatch` before anything is changed where one is refused and guards a promise or a restore is not done,
    `confluent_kafka.KafkaException`.
    """
    for one in differences:
        if one.setting == _PARTITIONS:
            raise TopicMismatch(f"topic {one.topic} has {one.found} partitions, wanted are {one.wanted}: {one.why}")
    client = admin(kafka)  # to be held: what a client was asked ends with it
    refuse_while_restoring(client)
    allowed = [one for one in differences if one.kind == "set" or (dangerous and one.kind == "dangerous")]
    by_topic: dict[str, list[Difference]] = {}
    for one in allowed:
        by_topic.setdefault(one.topic, []).append(one)
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[ConfigEntry(one.setting, one.wanted, incremental_operation=AlterConfigOpType.SET) for one in changes],
        )
        for name, changes in by_topic.items()
    ]
    for changed in client.incremental_alter_configs(resources).values() if resources else ():
        changed.result()
    created = set(ensure(kafka, delays_s))
    return [*allowed, *(one for one in differences if one.kind == "create" and one.topic in created)]


def _configs(client: AdminClient, topics: Sequence[Topic], timeout_s: float) -> dict[str, Mapping[str, Any]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    answers = client.describe_configs(resources, request_timeout=timeout_s)
    return {resource.name: answer.result(timeout_s) for resource, answer in answers.items()}


def _shape(topic: Topic, found: Any, kafka: KafkaSettings) -> Iterator[Difference]:
    if len(found.partitions) != kafka.partitions:
        yield Difference(
            topic.name, _PARTITIONS, str(len(found.partitions)), str(kafka.partitions), "refused",
            "an organization lives in one partition for the life of a topic generation: set TRIGGERS_KAFKA__PARTITIONS back; growing means "
            "a new generation (`triggers topics grow`)",
        )  # fmt: skip
    copies = min((len(partition.replicas) for partition in found.partitions.values()), default=0)
    if copies != kafka.replication_factor:
        yield Difference(
            topic.name, _REPLICATION, str(copies), str(kafka.replication_factor), "refused",
            "move replicas with kafka-reassign-partitions, which can be watched and taken back",
        )  # fmt: skip


def _settings(topic: Topic, found: Mapping[str, Any], kafka: KafkaSettings) -> Iterator[Difference]:
    for name, wanted in topic.config(min_insync_replicas=kafka.min_insync_replicas).items():
        value = found[name].value
        if set(value.split(",")) != set(wanted.split(",")):
            kind, why = _judge(name, value, wanted)
            yield Difference(topic.name, name, value, wanted, kind, why)


def _judge(name: str, found: str, wanted: str) -> tuple[Kind, str]:
    if name in _NO_LOWER and _number(wanted) < _number(found):
        return "dangerous", _NO_LOWER[name]
    if name == "cleanup.policy":
        gone = "compact" in wanted.split(",") and "compact" not in found.split(",")
        if gone or ("delete" in wanted.split(",") and "delete" not in found.split(",")):
            return "dangerous", "records that it kept until now may be deleted at once"
    return "set", ""


def _number(text: str) -> float:
    value = float(text)
    return _LARGEST if value == FOREVER else value
