"""Events that are in the log and not in Postgres yet: a bounded look at the end of one partition.

An event id holds its time, so a look begins a little before it; and nothing below the highest ingested offset that the inbox has taken can
be pending. What is left is usually a handful of records.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from projections.queries import Owner
from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from schemas import codec
from schemas.codec import HEADER_EVENT_ID, CodecError
from schemas.ids import EventId, event_time_ms
from schemas.keys import partition_of, record_key
from schemas.topics import EVENTS_INGESTED, EVENTS_REJECTED

#: An id may be made this long before its record is appended, or by a clock that is ahead of the broker's.
_SLACK_MS: Final = 60_000
_LOOK_TIMEOUT_S: Final = 2.0
_RECORDS_MAX: Final = 50_000
_LOOKS_MAX: Final = 2
_REQUEST_TIMEOUT_S: Final = 1.0

Found = Literal["pending", "rejected"]


class PendingLook:
    """Looks for events at the end of the log. At most `_LOOKS_MAX` at once."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._looks = asyncio.Semaphore(_LOOKS_MAX)

    async def find(self, owner: Owner, event_id: EventId, ingested_high: int) -> Found | None:
        """None if the event is not there, or could not be found within the limits. Raises `confluent_kafka.KafkaException`."""
        async with self._looks:
            return await asyncio.to_thread(self._find, owner, event_id, ingested_high)

    def _find(self, owner: Owner, event_id: EventId, ingested_high: int) -> Found | None:
        partition = partition_of(record_key(owner.organization), self._kafka.partitions)
        consumer = Consumer(
            {
                **client_config(self._kafka, "pending"),
                "group.id": "triggers-pending",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            },
            logger=LIBRDKAFKA_LOGGER,
        )
        try:
            if self._scan(consumer, EVENTS_INGESTED, partition, owner, event_id, ingested_high + 1):
                return "pending"
            return "rejected" if self._scan(consumer, EVENTS_REJECTED, partition, owner, event_id, 0) else None
        finally:
            consumer.close()

    def _scan(self, consumer: Consumer, topic: str, partition: int, owner: Owner, event_id: EventId, first: int) -> bool:
        since = TopicPartition(topic, partition, max(0, event_time_ms(event_id) - _SLACK_MS))
        offset = consumer.offsets_for_times([since], timeout=_REQUEST_TIMEOUT_S)[0].offset
        if offset < 0:  # nothing was appended since
            return False
        consumer.assign([TopicPartition(topic, partition, max(first, offset))])
        wanted, deadline, seen = event_id.encode(), time.monotonic() + _LOOK_TIMEOUT_S, 0
        while seen < _RECORDS_MAX and time.monotonic() < deadline:
            message = consumer.poll(deadline - time.monotonic())
            if message is None:
                return False
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return False
                raise KafkaException(error)
            seen += 1
            if dict(message.headers() or ()).get(HEADER_EVENT_ID) == wanted and _belongs(message.value(), owner, message.key()):
                return True
        return False


def _belongs(value: bytes | None, owner: Owner, key: bytes | None) -> bool:
    """Whether a record is the owner's. One that cannot be read has no mode to check, so it is nobody's."""
    if key != record_key(owner.organization):
        return False
    try:
        event = codec.ingested.decode(value)
    except CodecError:
        return False
    return (event.organization, event.mode) == owner
