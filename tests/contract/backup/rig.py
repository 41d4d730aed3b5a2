"""What a system holds, read without any of the code under test, and a log with everything that can be in one."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from psycopg import sql

from delivery.journal import Checkpoint, encode_checkpoint
from projections.rebuild import Progress
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, connect
from runtime.settings import Settings
from runtime.topics import admin
from schemas.topics import (
    DEDUP_APP,
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    declared,
    retry_topic,
)
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import fold_live
from triggers.provision import make_endpoint, make_tenant

EVENTS = 1_500
#: Of topics with a retention: what it has taken already, in each partition.
GONE = 7
#: Age of retries that were not made yet: their topic would keep them half a day longer.
OLD_MS = 27 * 43_200_000


class Found(NamedTuple):
    """A record as a plain consumer gets it. `clock`: who gave it its time."""

    offset: int
    clock: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def quiet(_: Progress) -> None:
    pass


def fill(settings: Settings) -> None:
    """Events with their folds, a control plane, and records of every kind and form in the other topics."""
    for number in range(3):
        tenant = make_tenant(settings, f"kept {number} \\N 'é' \\.")
        make_endpoint(settings, tenant.organization, "http://localhost:9/kept")
    Corpus(settings, organizations=12).produce(EVENTS)
    first = settings.delivery.delays_s[0]
    old_ms = SYSTEM.now_ms() - OLD_MS
    plain = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True})
    for number in range(100):
        partition = number % settings.kafka.partitions
        all_headers: list[tuple[str, str | bytes | None]] = [("a", b"\xff\x00"), ("a", None), ("é", "é".encode())]
        for topic in (EVENTS_INGESTED, EVENTS_REJECTED, DELIVERIES_DEAD, DEDUP_CHANGELOG, retry_topic(first)):
            key, value = (None, os.urandom(40)) if topic == EVENTS_REJECTED else (b"org_%d" % number, b'{"n":"\xc3\xa9%d\\n"}' % number)
            at_ms = old_ms if topic == retry_topic(first) and number >= 96 else 0
            plain.produce(topic, None if number % 10 == 9 else value, key, partition, headers=all_headers[: number % 4], timestamp=at_ms)
    assert plain.flush(60) == 0
    with_holes(settings)
    taken = [TopicPartition(topic, n, GONE) for topic in (DELIVERIES_DEAD, retry_topic(first)) for n in range(settings.kafka.partitions)]
    client = admin(settings.kafka)  # one that is gone never answers
    for answer in client.delete_records(taken).values():
        answer.result(30)
    commit(settings)
    fold_live(settings)


def with_holes(settings: Settings) -> None:
    """As compaction leaves a topic: offsets missing, the last one too. Here they are what ends a transaction."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": "test"})
    producer.init_transactions(30)
    for number in range(5):
        producer.begin_transaction()
        for partition in range(settings.kafka.partitions):
            producer.produce(DELIVERIES_FIFO, b'{"position":%d}' % number, b"ep_%d" % number, partition)
        producer.commit_transaction(30)


def commit(settings: Settings) -> None:
    """Where groups stand: dedup in the middle, delivery with its checkpoint, a retry topic that retention has cut."""
    first = retry_topic(settings.delivery.delays_s[0])
    for partition in range(settings.kafka.partitions):
        checkpoint = Checkpoint(h=5, t={DELIVERIES_ATTEMPTS: 11, first: GONE + 2, DELIVERIES_DEAD: GONE + 3})
        stands = {
            DEDUP_APP: [TopicPartition(EVENTS_INGESTED, partition, 9)],
            DELIVERY_GROUP: [
                TopicPartition(EVENTS_ACCEPTED, partition, 17, metadata=encode_checkpoint(checkpoint)),
                TopicPartition(first, partition, GONE + 4),
            ],
        }
        for group, offsets in stands.items():
            with closing(consumer_of(settings, group)) as consumer:
                consumer.commit(offsets=offsets, asynchronous=False)


def consumer_of(settings: Settings, group: str = "look") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20,
        }
    )  # fmt: skip


def log_of(settings: Settings) -> dict[tuple[str, int], list[Found]]:
    """Every record of every declared topic."""
    places = [(topic.name, number) for topic in declared(settings.delivery.delays_s) for number in range(settings.kafka.partitions)]
    found: dict[tuple[str, int], list[Found]] = {place: [] for place in places}
    left = set(places)
    with closing(consumer_of(settings)) as consumer:
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        while left:
            message = consumer.poll(20)
            assert message is not None, left
            place = (message.topic() or "", message.partition() or 0)
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(place)
                continue
            clock, timestamp_ms = message.timestamp()
            headers: Any = message.headers() or []
            found[place].append(Found(message.offset() or 0, clock, timestamp_ms, message.key(), message.value(), headers))
    return found


def stands(settings: Settings) -> dict[tuple[str, str, int], tuple[int, str]]:
    """(group, topic, partition) → what it has committed."""
    found = {}
    groups = {group for topic in declared(settings.delivery.delays_s) for group in topic.groups}
    for group in groups:
        names = [topic.name for topic in declared(settings.delivery.delays_s) if group in topic.groups]
        with closing(consumer_of(settings, group)) as consumer:
            asked = [TopicPartition(name, number) for name in names for number in range(settings.kafka.partitions)]
            for tp in consumer.committed(asked, timeout=10):
                if tp.offset >= 0:
                    found[group, tp.topic, tp.partition] = (tp.offset, tp.metadata or "")
    return found


def control_of(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the control plane, but for what backups and restores wrote of themselves."""
    found = {}
    with connect(settings.postgres, application="test") as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (CONTROL_SCHEMA,)).fetchall()
        for (table,) in tables:
            where = "WHERE action !~ '^(backup|projections)[.]'" if table == "audit_log" else ""
            query = sql.SQL("SELECT t::text FROM {} t {} ORDER BY 1").format(sql.Identifier(CONTROL_SCHEMA, table), sql.SQL(where))
            found[table] = connection.execute(query).fetchall()
    return found
