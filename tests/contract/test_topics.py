"""The admin step for topics on a real broker: idempotent, and unwilling where a promise would break."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from runtime.settings import Settings
from runtime.topics import GroupRunning, TopicMismatch, admin, ensure
from schemas.topics import DELIVERY_GROUP, EVENTS_ACCEPTED, retry_topic

EXTRA_DELAY_S = 0.123
EXTRA = retry_topic(EXTRA_DELAY_S)


@pytest.fixture
def operator(settings: Settings) -> Iterator[AdminClient]:
    """Removes the one topic that these tests add."""
    client = admin(settings.kafka)
    yield client
    for deleted in client.delete_topics([EXTRA]).values():
        deleted.result(20)


def test_a_second_run_changes_nothing(settings: Settings) -> None:
    assert ensure(settings.kafka, settings.delivery.delays_s) == []


def test_a_changed_partition_count_is_refused_with_what_to_do(settings: Settings) -> None:
    other = settings.kafka.model_copy(update={"partitions": settings.kafka.partitions + 1})
    with pytest.raises(TopicMismatch, match=f"set it back to {settings.kafka.partitions}"):
        ensure(other, settings.delivery.delays_s)


def test_a_new_topic_gives_its_new_group_offset_0_and_a_changed_guarded_setting_is_refused(
    settings: Settings, operator: AdminClient
) -> None:
    delays = (*settings.delivery.delays_s, EXTRA_DELAY_S)
    assert ensure(settings.kafka, delays) == [EXTRA]
    partitions = range(settings.kafka.partitions)
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP})
    try:
        asked = [TopicPartition(topic, number) for topic in (EXTRA, EVENTS_ACCEPTED) for number in partitions]
        assert {tp.offset for tp in consumer.committed(asked, timeout=20)} == {0}
    finally:
        consumer.close()
    compacted = ConfigResource(ResourceType.TOPIC, EXTRA, incremental_configs=[_set("cleanup.policy", "compact")])
    for changed in operator.incremental_alter_configs([compacted]).values():
        changed.result(20)
    with pytest.raises(TopicMismatch, match=f"{EXTRA} has cleanup.policy=compact"):
        ensure(settings.kafka, delays)


def test_a_new_topic_of_a_group_that_runs_is_refused_until_its_workers_are_stopped(settings: Settings, operator: AdminClient) -> None:
    delays = (*settings.delivery.delays_s, EXTRA_DELAY_S)
    worker = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP, "enable.auto.commit": False})
    try:
        worker.subscribe([EVENTS_ACCEPTED])
        deadline_s = time.monotonic() + 30
        while not worker.assignment():
            assert time.monotonic() < deadline_s, "the worker did not come into its group"
            worker.poll(0.2)
        with pytest.raises(GroupRunning, match=f"{EXTRA} is new to the group {DELIVERY_GROUP}, and its workers are running: stop them"):
            ensure(settings.kafka, delays)
    finally:
        worker.close()
    assert ensure(settings.kafka, delays) == []
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP})
    try:
        asked = [TopicPartition(EXTRA, number) for number in range(settings.kafka.partitions)]
        assert {tp.offset for tp in consumer.committed(asked, timeout=20)} == {0}
    finally:
        consumer.close()


def _set(name: str, value: str) -> ConfigEntry:
    return ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
