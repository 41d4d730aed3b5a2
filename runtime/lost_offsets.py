"""Where a group goes on whose committed offsets were lost, or are of records that are gone. Somebody has to decide it: see
docs/operating/lost-offsets.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings

_REQUEST_TIMEOUT_S: Final = 30.0

Place = Literal["beginning", "end"]


class Recovered(NamedTuple):
    """`was`: the offset that was committed, None where there was none."""

    topic: str
    partition: int
    was: int | None
    offset: int


def recover(kafka: KafkaSettings, group: str, topics: Sequence[str], place: Place) -> list[Recovered]:
    """Commit `place` for each partition without an offset that the log has. Offsets that are good stay.

    Raises `confluent_kafka.KafkaException`, with `UNKNOWN_MEMBER_ID` while the group has members.
    """
    consumer = Consumer({**client_config(kafka, "lost-offsets"), "group.id": group, "enable.auto.commit": False}, logger=LIBRDKAFKA_LOGGER)
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(kafka.partitions)]
        recovered: list[Recovered] = []
        for found in consumer.committed(partitions, timeout=_REQUEST_TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(found, timeout=_REQUEST_TIMEOUT_S)
            if not low <= found.offset <= high:
                was = found.offset if found.offset >= 0 else None
                recovered.append(Recovered(found.topic, found.partition, was, low if place == "beginning" else high))
        if recovered:
            consumer.commit(offsets=[TopicPartition(one.topic, one.partition, one.offset) for one in recovered], asynchronous=False)
        return recovered
    finally:
        consumer.close()
