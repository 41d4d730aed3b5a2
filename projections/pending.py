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
        """None if the event is not there. Raises `confluent_kafka.KafkaException`, also when the log could not be read to its end."""
        async with self._looks:
            return await asyncio.to_thread(self._find, owner, event_id, ingested_high)

    def _find(self, owner: Owner, event_id: EventId, ingested_high: int) -> Found | None:
        partition = partition_of(record_key(owner.organization), self._kafka.partitions)
        since_ms = max(0, event_time_ms(event_id) - _SLACK_MS)
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
            # Asked for once and before anything is assigned: librdkafka lets the same question time out afterwards.
            asked = [TopicPartition(topic, partition, since_ms) for topic in (EVENTS_INGESTED, EVENTS_REJECTED)]
            found = consumer.offsets_for_times(asked, timeout=_REQUEST_TIMEOUT_S)
            begin = [
                TopicPartition(tp.topic, partition, max(tp.offset, ingested_high + 1) if tp.topic == EVENTS_INGESTED else tp.offset)
                for tp in found
                if tp.offset >= 0  # else nothing was appended since
            ]
            return self._scan(consumer, begin, owner, event_id) if begin else None
        finally:
            consumer.close()

    def _scan(self, consumer: Consumer, begin: list[TopicPartition], owner: Owner, event_id: EventId) -> Found | None:
        consumer.assign(begin)
        wanted, deadline_s = event_id.encode(), time.monotonic() + _LOOK_TIMEOUT_S
        left, seen = {tp.topic for tp in begin}, 0
        while left and seen < _RECORDS_MAX and (remaining_s := deadline_s - time.monotonic()) > 0:
            message = consumer.poll(remaining_s)
            if message is None:
                break
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                left.discard(message.topic() or "")
                continue
            seen += 1
            if dict(message.headers() or ()).get(HEADER_EVENT_ID) == wanted and _belongs(message.value(), owner, message.key()):
                return "pending" if message.topic() == EVENTS_INGESTED else "rejected"
        if left:  # not to have looked at everything is not to know
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return None


def _belongs(value: bytes | None, owner: Owner, key: bytes | None) -> bool:
    """Whether a record is the owner's. One that cannot be read has no mode to check, so it is nobody's."""
    if key != record_key(owner.organization):
        return False
    try:
        event = codec.ingested.decode(value)
    except CodecError:
        return False
    return (event.organization, event.mode) == owner
