"""A system whose partitions are to grow, and what it says, whatever its partitions are."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import closing
from typing import Any, NamedTuple

import psycopg_pool
from confluent_kafka import KafkaError, Producer, TopicPartition

from delivery.journal import Checkpoint, encode_checkpoint
from runtime import migrations, topics
from runtime.clock import SYSTEM
from runtime.lifecycle import Unavailable
from runtime.postgres import FOLDS_SCHEMA, pool
from runtime.settings import Settings
from schemas import codec
from schemas.topics import (
    DEDUP_APP,
    DELIVERIES_ATTEMPTS,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    RESTORING,
)
from tests.contract.backup.rig import consumer_of, control_of, log_of, stands
from tests.contract.rebuild.rig import fetch, fold_live
from tests.grown_log import DELAYS_S, OLD, RETRY, log
from triggers.grow.move import with_partitions
from triggers.processes import wait_for_kafka
from triggers.provision import make_endpoint, make_tenant

AGE_MS = 60_000
#: Retries of each partition that are made.
MADE = 30
ROWS = "SELECT * FROM inbox ORDER BY organization, mode, generation, position"


class Told(NamedTuple):
    """What a system says, whatever its partitions are. By topic and key: what its records say, each once, in order."""

    inbox: list[tuple[Any, ...]]
    records: dict[tuple[str, bytes | None], list[str]]
    retries: list[str]
    control: dict[str, list[tuple[Any, ...]]]


def fill_small(target: Settings) -> Settings:
    """A system of two partitions at rest, on empty servers."""
    delivery = target.delivery.model_copy(update={"delays_s": (*DELAYS_S, 60.0)})
    settings = with_partitions(target.model_copy(update={"delivery": delivery}), OLD)
    migrations.migrate(settings.postgres)
    topics.ensure(settings.kafka, settings.delivery.delays_s)
    tenant = make_tenant(settings, "grown")
    make_endpoint(settings, tenant.organization, "http://localhost:9/grown")
    # Without idempotence a batch that is sent again comes behind later ones, and then the log is none that we could have written.
    plain = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True})
    for (topic, partition), records in log(SYSTEM.now_ms() - AGE_MS).items():
        for one in records:
            plain.produce(topic, one.value, one.key, partition, timestamp=one.timestamp_ms, headers=list(one.headers))
    assert plain.flush(30) == 0
    ends = topics.ends(topics.admin(settings.kafka), [(t, n) for t in (EVENTS_INGESTED, EVENTS_ACCEPTED) for n in range(OLD)])
    for n in range(OLD):
        checkpoint = Checkpoint(h=ends[EVENTS_INGESTED, n] - 1, t={DELIVERIES_ATTEMPTS: 40, RETRY: MADE + 1})
        commit(settings, DEDUP_APP, TopicPartition(EVENTS_INGESTED, n, ends[EVENTS_INGESTED, n]))
        accepted = TopicPartition(EVENTS_ACCEPTED, n, ends[EVENTS_ACCEPTED, n], metadata=encode_checkpoint(checkpoint))
        commit(settings, DELIVERY_GROUP, accepted, TopicPartition(RETRY, n, MADE))
    fold_live(settings)
    return settings


def commit(settings: Settings, group: str, *offsets: TopicPartition) -> None:
    with closing(consumer_of(settings, group)) as consumer:
        consumer.commit(offsets=list(offsets), asynchronous=False)


def told(settings: Settings) -> Told:
    records: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    retries, at = [], stands(settings)
    for (topic, partition), found in log_of(settings).items():
        for one in found:
            if topic in (EVENTS_INGESTED, EVENTS_REJECTED):
                records[topic, one.key].append(repr((one.key, one.value)))
            elif topic == EVENTS_ACCEPTED:
                event = str(codec.accepted.decode(one.value).event.id)
                if event not in records[topic, one.key]:  # a copy that a crash left counts for nothing
                    records[topic, one.key].append(event)
            elif topic == DELIVERIES_ATTEMPTS:
                records[topic, one.key].append(str(codec.journal.decode(one.value).event_id))
            elif topic == RETRY and one.offset >= at[DELIVERY_GROUP, RETRY, partition][0]:
                retries.append(repr(one.value))
    control = control_of(settings)
    del control["audit_log"]
    return Told(fetch(settings, ROWS), dict(records), sorted(retries), control)


def read(settings: Settings) -> list[tuple[Any, ...]] | None:
    """The inbox as a process reads it; None: it gets no connection."""

    async def rows() -> list[tuple[Any, ...]] | None:
        hasty = settings.postgres.model_copy(update={"connect_timeout_s": 1.0})
        connections = pool(hasty, search_path=FOLDS_SCHEMA, application="api")
        await connections.open()
        try:
            async with connections.connection() as connection:
                return await (await connection.execute(ROWS.encode())).fetchall()
        except psycopg_pool.PoolTimeout:
            return None
        finally:
            await connections.close()

    return asyncio.run(rows())


def append(settings: Settings) -> KafkaError | None:
    """One record more, as the API would; what the broker says of it."""
    answers: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "message.timeout.ms": 2_000})
    producer.produce(EVENTS_INGESTED, b"late", b"k", 0, on_delivery=lambda error, _: answers.append(error))
    producer.flush(20)
    return answers[0]


def marks(settings: Settings) -> list[str]:
    client = topics.admin(settings.kafka)
    return [name for name in client.list_topics(timeout=20).topics if name.startswith(RESTORING)]


def waits(settings: Settings) -> str:
    """What a process that begins says; empty: it begins."""
    try:
        wait_for_kafka(settings.model_copy(update={"startup_timeout_s": 0.2}))
    except Unavailable as error:
        return str(error)
    return ""
