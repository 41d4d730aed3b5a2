"""One record, appended and confirmed: for commands, which have no event loop and no second record."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from runtime.kafka import LIBRDKAFKA_LOGGER, AppendError, Headers, Report, producer_config
from runtime.settings import KafkaSettings
from runtime.topics import refuse_elsewhere

_DELIVERY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


def append(kafka: KafkaSettings, topic: str, value: bytes, key: bytes, *, headers: Headers, partition: int) -> Report:
    """Returns where it stands, once every replica that has to has it. Raises `AppendError`: it may be there all the same;
    `runtime.topics.TopicMismatch`, and nothing was put, where the topic has another number of partitions than the settings say."""
    config = producer_config(kafka, client_id="command", linger_ms=0, delivery_timeout_s=_DELIVERY_TIMEOUT_S, gapless=False)
    producer = Producer(config, logger=LIBRDKAFKA_LOGGER)
    reports: list[tuple[KafkaError | None, Message]] = []
    deadline_s = time.monotonic() + 2 * _DELIVERY_TIMEOUT_S
    try:
        refuse_elsewhere(kafka, producer.list_topics(timeout=_DELIVERY_TIMEOUT_S).topics, topic)
        producer.produce(topic, value, key, partition, on_delivery=lambda *report: reports.append(report), headers=list(headers))
        while not reports and time.monotonic() < deadline_s:
            producer.poll(_POLL_S)
    except KafkaException as error:
        raise AppendError("unknown", str(error)) from error
    if not reports:
        raise AppendError("unknown", "Kafka did not confirm it in time")
    refused, message = reports[0]
    if refused is not None:
        raise AppendError("unknown", refused.str())
    return Report(topic, message.partition() or 0, message.offset() or 0, message.timestamp()[1])
