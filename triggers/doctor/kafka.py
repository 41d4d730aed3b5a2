"""Brokers, topics, groups: what the log promises only while they are as declared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka._model import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType

from runtime.settings import Settings
from runtime.topic_plan import compare
from runtime.topics import admin, generation, restoring
from schemas.topics import DEDUP_APP, DELIVERY_GROUP, EVENTS_ACCEPTED, MESSAGE_BYTES_MAX, PROJECT_APP, Topic, declared, retry_topic
from triggers.doctor.findings import Said, bad, ok, warn

#: Group → the command that runs a member of it.
_GROUPS: Final = {DEDUP_APP: "triggers process dedup", PROJECT_APP: "triggers process project", DELIVERY_GROUP: "triggers deliver"}
#: By (topic, partition).
Offsets = dict[tuple[str, int], int]

#: What a client meets in the moments in which a partition gets its leader.
_MOVING: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
_MOVING_PAUSE_S: Final = 0.2
_OFFSETS_TOPIC: Final = "__consumer_offsets"
#: A group that stood still for as long as a retry may wait must still find its offsets.
_OFFSETS_RETENTION_MINUTES_MIN: Final = 14 * 24 * 60
_DELAYS: Final = retry_topic(1).removesuffix("1s")


def brokers(settings: Settings) -> Iterator[Said]:
    kafka, timeout_s = settings.kafka, settings.operating.check_timeout_s
    client = admin(kafka)
    cluster = client.describe_cluster(request_timeout=timeout_s).result(timeout_s)
    count = len(cluster.nodes)
    if count < kafka.replication_factor:
        yield bad(f"brokers that answer: {count}, replication is {kafka.replication_factor}", "start the brokers that are missing")
    else:
        yield ok(f"brokers: {count}, replication {kafka.replication_factor}")
    yield from _broker_settings(client, [str(node.id) for node in cluster.nodes], timeout_s)
    topics = client.list_topics(timeout=timeout_s).topics
    yield from _replicas(topics)
    offsets = topics.get(_OFFSETS_TOPIC)
    copies = min((len(one.replicas) for one in offsets.partitions.values()), default=0) if offsets is not None else None
    if copies is not None and copies < kafka.replication_factor:
        yield bad(
            f"{_OFFSETS_TOPIC} has {copies} replicas, topics have {kafka.replication_factor}: with a broker the groups lose their places",
            "give it as many with kafka-reassign-partitions, and set offsets.topic.replication.factor",
        )


def _broker_settings(client: AdminClient, nodes: list[str], timeout_s: float) -> Iterator[Said]:
    answers = client.describe_configs([ConfigResource(ResourceType.BROKER, node) for node in nodes], request_timeout=timeout_s)
    for resource, answer in answers.items():
        found = {name: entry.value for name, entry in answer.result(timeout_s).items()}
        broker = f"broker {resource.name}"
        if found.get("auto.create.topics.enable") != "false":
            yield bad(
                f"{broker} creates topics by itself: a wrong name becomes a topic with wrong settings",
                "set auto.create.topics.enable=false on every broker",
            )
        # A topic's own setting goes first; what replicas fetch is bounded softly.
        if int(found.get("message.max.bytes") or 0) < MESSAGE_BYTES_MAX:
            yield warn(
                f"{broker} has message.max.bytes={found.get('message.max.bytes')}, the largest record is {MESSAGE_BYTES_MAX}",
                "topics set their own limit; set the broker's above it as well",
            )
        if int(found.get("offsets.retention.minutes") or 0) < _OFFSETS_RETENTION_MINUTES_MIN:
            yield warn(
                f"{broker} forgets the offsets of a stopped group after {found.get('offsets.retention.minutes')} minutes",
                f"set offsets.retention.minutes to at least {_OFFSETS_RETENTION_MINUTES_MIN}, as docker-compose.yml does",
            )


def _replicas(topics: dict[str, Any]) -> Iterator[Said]:
    leaderless, thin = [], []
    for name, topic in sorted(topics.items()):
        for number, one in sorted(topic.partitions.items()):
            if one.leader < 0:
                leaderless.append(f"{name}[{number}]")
            elif len(one.isrs) < len(one.replicas):
                thin.append(f"{name}[{number}]")
    if leaderless:
        yield bad(f"without a leader: {_some(leaderless)}", "start the brokers that hold their replicas; never allow an unclean election")
    if thin:
        yield bad(f"replicas behind their leader: {_some(thin)}", "see which broker is down or slow; another loss may stop writes")


def topics(settings: Settings) -> Iterator[Said]:
    client = admin(settings.kafka)
    if (mark := restoring(client, settings.operating.check_timeout_s)) is not None:
        yield bad(f"a restore, or a move to more partitions, is not done (topic {mark})", "the same command goes on where it was stopped")
    differences = compare(settings.kafka, settings.delivery.delays_s, timeout_s=settings.operating.check_timeout_s)
    for one in differences:
        if one.kind == "create":
            yield bad(f"topic {one.topic} is not there", "run `triggers topics apply`")
            continue
        what = f"topic {one.topic} has {one.setting}={one.found}, declared is {one.wanted}"
        if one.kind == "refused":
            yield bad(what, one.why)
        elif one.is_guarded or (one.setting == "min.insync.replicas" and one.kind == "set"):
            yield bad(what, "look at `triggers topics plan`, then `triggers topics apply`")
        else:
            yield warn(what, "leave it if it was tuned on purpose; else look at `triggers topics plan`")
    if not differences:
        number = generation(client, settings.operating.check_timeout_s)
        yield ok(f"{len(declared(settings.delivery.delays_s))} topics are as declared, of generation {number}")


def groups(settings: Settings) -> Iterator[Said]:
    timeout_s = settings.operating.check_timeout_s
    client = admin(settings.kafka)
    every = declared(settings.delivery.delays_s)
    existing = client.list_topics(timeout=timeout_s).topics
    yield from _forgotten_delays(client, [name for name in existing if name.startswith(_DELAYS)], settings)
    descriptions = client.describe_consumer_groups(list(_GROUPS), request_timeout=timeout_s)
    for group, command in _GROUPS.items():
        read = [topic for topic in every if group in topic.groups and topic.name in existing]
        yield from _members(group, command, descriptions[group].result(timeout_s), read, settings)
        yield from _offsets(client, group, read, settings)


def _members(group: str, command: str, found: Any, read: list[Topic], settings: Settings) -> Iterator[Said]:
    if not found.members:
        yield bad(f"group {group} has no member", f"start `{command}`; if it runs, its log says why it left")
        return
    assigned = {(tp.topic, tp.partition) for member in found.members for tp in member.assignment.topic_partitions}
    # Delivery shares out one topic; whoever has a partition of it takes that of the others along (ADR 13).
    shared = [topic.name for topic in read if group != DELIVERY_GROUP or topic.name == EVENTS_ACCEPTED]
    wanted = {(name, number) for name in shared for number in range(settings.kafka.partitions)}
    state = found.state.name.lower()
    if missing := sorted(f"{topic}[{number}]" for topic, number in wanted - assigned):
        yield warn(
            f"group {group} is {state}; nobody reads {_some(missing)}",
            f"look again in a moment: it may be changing hands. If it stays so, restart `{command}`",
        )
    else:
        yield ok(f"group {group}: {len(wanted)} partitions, members: {len(found.members)}")


def _offsets(client: AdminClient, group: str, read: list[Topic], settings: Settings) -> Iterator[Said]:
    committed, lows, highs = _places(client, group, [topic.name for topic in read], settings)
    none, beyond, lags = [], [], Counter[str]()
    for place, high in highs.items():
        at, name = committed.get(place, -1), f"{place[0]}[{place[1]}]"
        if at < 0:
            if high > 0 or group == DELIVERY_GROUP:
                none.append(name)
            lags[place[0]] += high - lows[place]
        elif not lows[place] <= at <= high:
            beyond.append(f"{name} at {at}, which holds {lows[place]} to {high}")
        else:
            lags[place[0]] += high - at
    if none and group == DELIVERY_GROUP:
        yield bad(
            f"group {group} has no offsets for {_some(none)}",
            "run `triggers topics apply`. If it gives none, records are there and offsets were lost: decide where to begin with "
            "`triggers lost-offsets` (docs/operating/lost-offsets.md)",
        )
    elif none:
        yield warn(f"group {group} has never committed on {_some(none)}", "if it has run before, its offsets were lost: see its log")
    if beyond:
        yield bad(
            f"group {group} stands outside of {_some(beyond)}",
            "is this its broker, or was it restored from an older copy? Stop the group before anything else",
        )
    for topic, lag in sorted(lags.items()):
        if lag > settings.operating.lag_records_max and not topic.startswith(_DELAYS):
            yield warn(
                f"group {group} is {lag:,} records behind on {topic}", f"see its log and its machine; `{_GROUPS[group]}` may be too few"
            )


def _forgotten_delays(client: AdminClient, existing: list[str], settings: Settings) -> Iterator[Said]:
    """Delay topics that no worker reads any more, because the delay was taken out of the setting."""
    wanted = {retry_topic(delay) for delay in settings.delivery.delays_s}
    forgotten = sorted(set(existing) - wanted)
    if not forgotten:
        return
    committed, lows, highs = _places(client, DELIVERY_GROUP, forgotten, settings)
    left = Counter[str]()
    for place, high in highs.items():
        left[place[0]] += high - max(committed.get(place, -1), lows[place])
    for topic, count in sorted(left.items()):
        if count > 0:
            yield bad(f"{count:,} retries wait on {topic}, which nobody reads", "put its delay back into TRIGGERS_DELIVERY__DELAYS_S")


def _places(client: AdminClient, group: str, names: list[str], settings: Settings) -> tuple[Offsets, Offsets, Offsets]:
    """Committed offsets, beginnings and ends by (topic, partition)."""
    timeout_s = settings.operating.check_timeout_s
    asked = [TopicPartition(name, number) for name in names for number in range(settings.kafka.partitions)]
    answer = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)], request_timeout=timeout_s)
    committed = {(tp.topic, tp.partition): tp.offset for tp in answer[group].result(timeout_s).topic_partitions}
    return committed, *reach(client, [(tp.topic, tp.partition) for tp in asked], timeout_s)


def reach(client: AdminClient, places: Iterable[tuple[str, int]], timeout_s: float) -> tuple[Offsets, Offsets]:
    """First offsets and ends. Asked again while leaders move or are new. Raises `confluent_kafka.KafkaException`."""
    asked = [TopicPartition(*place) for place in places]
    specs = (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            lows, highs = (
                {
                    place: one.result(timeout_s)
                    for place, one in client.list_offsets(dict.fromkeys(asked, spec), request_timeout=timeout_s).items()
                }
                for spec in specs
            )
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline_s:
                raise
            time.sleep(_MOVING_PAUSE_S)
        else:
            return _by_place(lows), _by_place(highs)


def _by_place(found: dict[TopicPartition, Any]) -> Offsets:
    return {(tp.topic, tp.partition): one.offset for tp, one in found.items()}


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
