"""Reading and writing topics in tests, beside the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from runtime.settings import Settings
from schemas.records import Record


def read_topic(settings: Settings, name: str) -> list[Record]:
    """Every record of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        consumer.assign([TopicPartition(name, partition, 0) for partition in range(settings.kafka.partitions)])
        records: list[Record] = []
        ended = 0
        while ended < settings.kafka.partitions:
            for message in consumer.consume(1_000, 0.2):
                if (error := message.error()) is None:
                    headers = cast(list[tuple[str, bytes | None]], message.headers() or [])
                    records.append(Record(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
        return records
    finally:
        consumer.close()


def write_records(settings: Settings, name: str, records: Sequence[tuple[bytes | None, bytes | None, int]]) -> None:
    """(key, value, partition) straight to a topic, as no process of ours would."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True})
    for key, value, partition in records:
        producer.produce(name, value, key, partition)
    assert producer.flush(20) == 0
