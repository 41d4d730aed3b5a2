"""Where delivery may not begin it does not, and says what to do: lost offsets, offsets of records that are gone, delay topics it does not
know."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from delivery.consumer import ConsumerThread
from runtime import migrations, topics
from runtime.lifecycle import EXIT_FATAL, StallGuard
from runtime.settings import Settings
from schemas.records import Record
from schemas.topics import DELIVERY_GROUP, EVENTS_ACCEPTED, retry_topic
from tests.backends import start_servers
from tests.chaos.groups import Groups
from tests.conftest import TEST_ENVIRONMENT
from triggers.devstack.process import spawn
from triggers.system import PROCESSES, argv, settings_of, until


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[dict[str, str]]:
    """Of servers of this file's own: it takes a group's offsets away, and topics that others have filled have none then."""
    with start_servers(tmp_path_factory.mktemp("stack")) as servers:
        made = {**servers.environment, **TEST_ENVIRONMENT}
        prepared = settings_of(made)
        migrations.migrate(prepared.postgres)
        topics.ensure(prepared.kafka, prepared.delivery.delays_s)
        yield made


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return settings_of(environment)


@pytest.fixture
def retries(settings: Settings) -> Iterator[str]:
    """A delay topic with three records in partition 0, which are no retries. As it was before, in the end."""
    topic = retry_topic(settings.delivery.delays_s[0])
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for _ in range(3):
        producer.produce(topic, b"junk", partition=0)
    assert producer.flush(20) == 0
    yield topic
    _empty(settings)
    operator = topics.admin(settings.kafka)
    for deleted in operator.delete_records([TopicPartition(topic, 0, -1)]).values():
        deleted.result(20)
    _commit(settings, topic, _watermarks(settings, topic)[1])
    topics.ensure(settings.kafka, settings.delivery.delays_s)


def _consumer(settings: Settings) -> Consumer:
    return Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP, "enable.auto.commit": False})


def _commit(settings: Settings, topic: str, offset: int) -> None:
    consumer = _consumer(settings)
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def _committed(settings: Settings, topic: str) -> int:
    consumer = _consumer(settings)
    offset = consumer.committed([TopicPartition(topic, 0)], timeout=20)[0].offset
    consumer.close()
    return int(offset)


def _watermarks(settings: Settings, topic: str) -> tuple[int, int]:
    consumer = _consumer(settings)
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    consumer.close()
    return low, high


def _empty(settings: Settings) -> None:
    """Until the group has no members: a static one that ended is one until its session is over."""
    groups = Groups(settings.kafka)
    until(lambda: not groups.owned(DELIVERY_GROUP), 40, "the group being empty", 0.2)


def _forget_group(settings: Settings) -> None:
    _empty(settings)
    operator = topics.admin(settings.kafka)  # kept: a client that is let go of answers no more
    for deleted in operator.delete_consumer_groups([DELIVERY_GROUP]).values():
        deleted.result(20)


def _ensured(settings: Settings) -> bool:
    try:
        topics.ensure(settings.kafka, settings.delivery.delays_s)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:  # the topics are only just made
            raise
        return False
    return True


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "PATH": "/usr/bin:/bin"}


def refused(environment: Mapping[str, str]) -> str:
    """The reason of a worker that ends itself."""
    ran = subprocess.run(argv(*PROCESSES["delivery"]), env=_environment(environment), capture_output=True, check=False, timeout=90)
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (ran.returncode, ran.stderr, last["event"]) == (EXIT_FATAL, b"", "process.died")
    return str(last["reason"])


def begins_and_ends(environment: Mapping[str, str], log: Path) -> None:
    child = spawn("delivery", argv(*PROCESSES["delivery"]), log_path=log, env=_environment(environment))
    try:
        until(lambda: "partitions.assigned" in log.read_text() or not child.alive(), 90, "taking partitions over")
    finally:
        assert child.stop(signal.SIGTERM, 20) == 0, log.read_text()


def lost_offsets(environment: Mapping[str, str], place: str) -> list[dict[str, object]]:
    ran = subprocess.run(
        argv("lost-offsets", "--go-on", place, "--json"), env=_environment(environment), capture_output=True, check=True, timeout=60
    )
    found: list[dict[str, object]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize(("place", "number"), [pytest.param("beginning", 0, marks=pytest.mark.verify), ("end", 1)])
def test_lost_offsets_end_the_worker_until_somebody_decides_where_deliveries_go_on(
    place: str, number: int, environment: dict[str, str], settings: Settings, retries: str, tmp_path: Path
) -> None:
    _forget_group(settings)
    until(lambda: _ensured(settings), 30, "the topics being ready")  # which gives first offsets to what is empty, and to nothing else
    reason = refused(environment)
    assert f"no offsets for {retries}[0]." in reason
    assert "triggers lost-offsets" in reason
    _empty(settings)
    decided = _watermarks(settings, retries)[number]
    assert lost_offsets(environment, place) == [{"topic": retries, "partition": 0, "was": None, "offset": decided}]
    assert _committed(settings, retries) == decided
    assert lost_offsets(environment, place) == []
    if place == "end":
        begins_and_ends(environment, tmp_path / "log")


def test_an_offset_whose_record_is_gone_ends_the_worker_and_nothing_is_skipped_in_silence(
    environment: dict[str, str], settings: Settings, retries: str
) -> None:
    low, high = _watermarks(settings, retries)
    _commit(settings, retries, low)
    operator = topics.admin(settings.kafka)
    for deleted in operator.delete_records([TopicPartition(retries, 0, high - 1)]).values():
        deleted.result(20)
    reason = refused(environment)
    assert "triggers lost-offsets" in reason
    assert _committed(settings, retries) == low
    _empty(settings)
    assert lost_offsets(environment, "beginning") == [{"topic": retries, "partition": 0, "was": low, "offset": high - 1}]


@pytest.mark.verify
def test_retries_on_a_delay_topic_that_a_worker_does_not_know_end_it_and_an_empty_one_does_not(
    environment: dict[str, str], settings: Settings, retries: str, tmp_path: Path
) -> None:
    others = {**environment, "TRIGGERS_DELIVERY__DELAYS_S": json.dumps(settings.delivery.delays_s[1:])}
    _commit(settings, retries, _watermarks(settings, retries)[0])
    assert f"{retries}[0] holds retries" in refused(others)
    _empty(settings)
    _commit(settings, retries, _watermarks(settings, retries)[1])
    begins_and_ends(others, tmp_path / "log")


@pytest.mark.verify
def test_where_deliveries_go_on_is_not_decided_behind_the_back_of_a_worker(
    environment: dict[str, str], settings: Settings, retries: str
) -> None:
    _commit(settings, retries, _watermarks(settings, retries)[1] + 7)  # past the end: not one of this log
    member = _consumer(settings)
    member.subscribe([EVENTS_ACCEPTED])
    try:
        until(lambda: member.poll(0.1) is None and bool(member.assignment()), 60, "joining the group")
        ran = subprocess.run(
            argv("lost-offsets", "--go-on", "end"), env=_environment(environment), capture_output=True, check=False, timeout=60, text=True
        )
        assert ran.returncode == 1
        assert "stop all of them" in ran.stderr
    finally:
        member.close()
    assert [one["offset"] for one in lost_offsets(environment, "end")] == [_watermarks(settings, retries)[1]]


async def test_in_a_call_back_the_consumer_is_asked_for_nothing_that_makes_it_forget_that_it_is_in_one(settings: Settings) -> None:
    """confluent-kafka ends the process at the next call-back of the same poll after `list_topics`."""
    asked: list[str] = []

    class Client:
        def committed(self, places: list[TopicPartition], **_: float) -> list[TopicPartition]:
            asked.append("committed")
            return places

        def incremental_assign(self, _: list[TopicPartition]) -> None:
            asked.append("incremental_assign")

    class Owner:
        def read_tails(self, partitions: Sequence[int], committed: Sequence[TopicPartition]) -> None: ...
        async def assigned(self, committed: Sequence[TopicPartition], tails: object) -> None: ...
        async def revoked(self, partitions: Collection[int], *, lost: bool) -> Sequence[TopicPartition]:
            return ()

        def records(self, topic: str, partition: int, records: Sequence[Record]) -> None: ...

    sources = [EVENTS_ACCEPTED, *map(retry_topic, settings.delivery.delays_s)]
    thread = ConsumerThread(settings, sources, Owner(), StallGuard(60))
    await asyncio.to_thread(thread._on_assign, cast(Consumer, Client()), [TopicPartition(EVENTS_ACCEPTED, 0)])
    assert asked == ["committed", "incremental_assign"]
