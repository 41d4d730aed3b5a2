"""Reading a partition of a compacted topic: offsets may be missing, also the last ones before an end."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from projections.log_reader import LogError, Place, Range
from runtime.kafka import LIBRDKAFKA_LOGGER, Headers, client_config
from runtime.settings import KafkaSettings
from schemas.records import Record

_TAKE_MAX: Final = 1_000
_POLL_S: Final = 0.2


def read_compacted(kafka: KafkaSettings, place: Place, part: Range, stall_timeout_s: float) -> Generator[Record, None, None]:
    """Records of a range in order, as many as there are. Raises `LogError` when none come, `confluent_kafka.KafkaException`."""
    consumer = Consumer(
        {
            **client_config(kafka, "backup"),
            "group.id": "triggers-backup",  # librdkafka wants one; it is never joined and nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # where the first ones have gone meanwhile, newer ones of their keys are further on
        },
        logger=LIBRDKAFKA_LOGGER,
    )
    try:
        consumer.assign([TopicPartition(*place, part.begin)])
        deadline_s = time.monotonic() + stall_timeout_s
        while True:
            for message in consumer.consume(_TAKE_MAX, _POLL_S):
                offset, error = message.offset() or 0, message.error()
                deadline_s = time.monotonic() + stall_timeout_s
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    if error.fatal() or not error.retriable():
                        raise KafkaException(error)
                    continue
                if offset >= part.end:
                    return
                yield Record(offset, message.timestamp()[1], message.key(), message.value(), cast(Headers, message.headers() or ()))
                if offset == part.end - 1:
                    return
            if time.monotonic() > deadline_s:
                raise LogError(f"nothing came from {place[0]}[{place[1]}] for {stall_timeout_s:g} s: is the broker up?")
    finally:
        consumer.close()
