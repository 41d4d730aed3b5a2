"""A fast reader of ranges of topics: batches of one librdkafka consumer that belongs to no group and commits nothing.

It reads exactly what it is asked for, in order within a partition, and stops loudly where a record is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from schemas.records import Record

#: (topic, partition).
Place = tuple[str, int]

#: Messages taken from librdkafka at once, and bytes of them after which a batch ends: what one transaction holds in memory.
_TAKE_MAX: Final = 1_000
_BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
_POLL_S: Final = 0.2
_REQUEST_TIMEOUT_S: Final = 10.0
#: What librdkafka reports and tries again by itself.
_PASSING: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT})


class LogError(RuntimeError):
    """The log does not hold what was asked of it."""


class Range(NamedTuple):
    """Offsets of one partition, `end` exclusive."""

    begin: int
    end: int


class Chunk(NamedTuple):
    """Records of one partition without a gap, from offset `begin` to `end` (exclusive)."""

    place: Place
    records: list[Record]

    @property
    def begin(self) -> int:
        return self.records[0].offset

    @property
    def end(self) -> int:
        return self.records[-1].offset + 1


class LogReader:
    """Reads ranges. One per thread; `close` it."""

    def __init__(self, kafka: KafkaSettings, *, batch_records_max: int, stall_timeout_s: float) -> None:
        self._batch_records_max = batch_records_max
        self._stall_timeout_s = stall_timeout_s
        self._consumer = Consumer(
            {
                **client_config(kafka, "rebuild"),
                "group.id": "triggers-rebuild",  # librdkafka wants one; it is never joined and nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
                "max.partition.fetch.bytes": 4 * 1024 * 1024,
            },
            logger=LIBRDKAFKA_LOGGER,
        )

    def close(self) -> None:
        self._consumer.close()

    def read(self, ranges: Mapping[Place, Range]) -> Iterator[list[Chunk]]:
        """Batches until every range is read. Raises `LogError` for a hole or a stall, `confluent_kafka.KafkaException`."""
        left = {place: part for place, part in ranges.items() if part.begin < part.end}
        if not left:
            return
        expected = {place: part.begin for place, part in left.items()}
        begin = [TopicPartition(topic, number, part.begin) for (topic, number), part in left.items()]
        self._consumer.assign(begin)
        self._consumer.resume(begin)  # one that was read to its end before may still be paused
        try:
            while left:
                batch: dict[Place, list[Record]] = {}
                for message in self._take(left):
                    place = (message.topic() or "", message.partition() or 0)
                    if place in left:
                        self._keep(batch, place, message, expected, left)
                if batch:
                    yield [Chunk(place, records) for place, records in batch.items()]
        finally:
            self._consumer.unassign()

    def _take(self, left: Mapping[Place, Range]) -> Iterator[Message]:
        """Up to a batch of messages. Raises `LogError` when none comes for too long."""
        count = size = 0
        deadline_s = time.monotonic() + self._stall_timeout_s
        while left and count < self._batch_records_max and size < _BATCH_BYTES_MAX:
            messages = self._consumer.consume(min(_TAKE_MAX, self._batch_records_max - count), _POLL_S if not count else 0.01)
            if not messages:
                if count:
                    return
                if time.monotonic() > deadline_s:
                    names = ", ".join(f"{topic}[{number}]" for topic, number in sorted(left))
                    raise LogError(f"nothing came from {names} for {self._stall_timeout_s:g} s: is the broker up?")
            for message in messages:
                if (error := message.error()) is not None:
                    self._explain(error, message)
                    continue
                count += 1
                size += len(message)
                yield message

    @staticmethod
    def _explain(error: KafkaError, message: Message) -> None:
        """Raises unless librdkafka goes on by itself: then silence has its limit."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise LogError(f"{message.topic()}[{message.partition()}] does not hold offset {message.offset()} any more: {error.str()}")
        if error.fatal() or error.code() not in _PASSING:
            raise KafkaException(error)

    def _keep(
        self, batch: dict[Place, list[Record]], place: Place, message: Message, expected: dict[Place, int], left: dict[Place, Range]
    ) -> None:
        offset = message.offset()
        if offset != expected[place]:
            raise LogError(f"{place[0]}[{place[1]}] has a hole: offset {expected[place]} is not there, the next is {offset}")
        batch.setdefault(place, []).append(Record(offset, message.timestamp()[1], message.key(), message.value(), ()))
        expected[place] = offset + 1
        if offset + 1 == left[place].end:
            del left[place]
            self._consumer.pause([TopicPartition(*place)])


def bounds(kafka: KafkaSettings, places: Iterable[Place]) -> dict[Place, Range]:
    """First offset and end of each partition. Raises `confluent_kafka.KafkaException`.

    By a consumer of its own: librdkafka lets such a question time out where something is assigned.
    """
    consumer = Consumer({**client_config(kafka, "rebuild"), "group.id": "triggers-rebuild"}, logger=LIBRDKAFKA_LOGGER)
    try:
        return {
            (topic, number): Range(*consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_REQUEST_TIMEOUT_S))
            for topic, number in places
        }
    finally:
        consumer.close()
