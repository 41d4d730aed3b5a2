"""A fast reader of ranges of topics: batches of one librdkafka consumer that belongs to no group and commits nothing.

It reads exactly what it is asked for, in order within a partition, and stops loudly where a record is missing.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, Headers, client_config
from runtime.settings import KafkaSettings
from schemas.records import Record

T = TypeVar("T")
#: (topic, partition).
Place = tuple[str, int]

#: Messages taken from librdkafka at once, and bytes of them after which a batch ends: what one transaction holds in memory.
_TAKE_MAX: Final = 1_000
_BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
#: Records of a partition kept for later ranges, above which it is paused.
_HELD_MAX: Final = 5_000
_POLL_S: Final = 0.2
_REQUEST_TIMEOUT_S: Final = 10.0
#: What a client meets in the moments in which a partition gets its leader.
_MOVING: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
_MOVING_PAUSE_S: Final = 0.2
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
    """Reads ranges. One per thread; `close` it.

    `headers`: whether records come with theirs, which no fold looks at and which cost time.
    It goes on reading ahead of what it was asked for, so a range that begins where the last one of its partition ended is there at once.
    `ahead_kbytes`: how far ahead it reads.
    """

    def __init__(
        self, kafka: KafkaSettings, *, batch_records_max: int, stall_timeout_s: float, headers: bool = False, ahead_kbytes: int = 131_072
    ) -> None:
        self._batch_records_max = batch_records_max
        self._stall_timeout_s = stall_timeout_s
        self._headers = headers
        #: The next offset to hand out and the next to come from the broker, of each partition that is being read.
        self._next: dict[Place, int] = {}
        self._coming: dict[Place, int] = {}
        self._held: dict[Place, deque[Record]] = {}
        self._paused: set[Place] = set()
        self._abandoned = False
        self._consumer = Consumer(
            {
                **client_config(kafka, "rebuild"),
                "group.id": "triggers-rebuild",  # librdkafka wants one; it is never joined and nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
                "max.partition.fetch.bytes": min(16, max(1, ahead_kbytes // 1024)) * 1024 * 1024,
                "queued.min.messages": 1_000_000,
                "queued.max.messages.kbytes": ahead_kbytes,
            },
            logger=LIBRDKAFKA_LOGGER,
        )

    def close(self) -> None:
        self._consumer.close()

    def read(self, ranges: Mapping[Place, Range]) -> Iterator[list[Chunk]]:
        """Batches until every range is read. Empty ranges say where to read ahead.

        Raises `LogError` for a hole or a stall, `confluent_kafka.KafkaException`.
        """
        left = {place: part.end for place, part in ranges.items() if part.begin < part.end}
        if any(self._next.get(place) != ranges[place].begin for place in left):
            self._begin({place: part.begin for place, part in ranges.items()})
        while left:
            batch: dict[Place, list[Record]] = {}
            self._take_held(batch, left)
            if not batch:
                with no_cycles():
                    self._take(batch, left)
            for place, records in batch.items():
                self._next[place] = records[-1].offset + 1
                if self._next[place] == left[place]:
                    del left[place]
            yield [Chunk(place, records) for place, records in batch.items()]

    async def read_ahead(self, ranges: Mapping[Place, Range]) -> AsyncGenerator[list[Chunk], None]:
        """As `read`, in a thread and one batch ahead: while the caller waits for its database, the next batch comes.

        Close it (`contextlib.aclosing`): the thread must be done before the reader is used again. Raises as `read`.
        """
        batches = self.read(ranges)
        coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
        try:
            while (batch := await asyncio.shield(coming)) is not None:
                coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
                yield batch
        finally:
            self._abandoned = True
            await asyncio.wait((coming,))
            self._abandoned = False
            if not coming.cancelled():
                coming.exception()  # looked at, or asyncio complains of one that nobody came for

    def _begin(self, begin: dict[Place, int]) -> None:
        self._next, self._coming, self._held, self._paused = dict(begin), dict(begin), {place: deque() for place in begin}, set()
        assigned = [TopicPartition(topic, number, offset) for (topic, number), offset in begin.items()]
        self._consumer.assign(assigned)
        self._consumer.resume(assigned)  # one that was read before may still be paused

    def _take_held(self, batch: dict[Place, list[Record]], left: Mapping[Place, int]) -> None:
        for place, end in left.items():
            held = self._held[place]
            count = min(len(held), end - self._next[place])
            if count:
                batch[place] = [held.popleft() for _ in range(count)]
            if place in self._paused:
                self._paused.remove(place)
                self._consumer.resume([TopicPartition(*place)])

    def _take(self, batch: dict[Place, list[Record]], left: Mapping[Place, int]) -> None:
        """Up to a batch of records from the broker. Raises `LogError` when none comes for too long."""
        count = size = 0
        deadline_s = time.monotonic() + self._stall_timeout_s
        while count < self._batch_records_max and size < _BATCH_BYTES_MAX and not self._abandoned:
            messages = self._consumer.consume(min(_TAKE_MAX, self._batch_records_max - count), 0.01 if count else _POLL_S)
            if not messages and count:
                return
            for message in messages:
                if (error := message.error()) is not None:
                    self._explain(error, message)
                elif self._sort(batch, left, message):
                    count += 1
                    size += len(message)
            if not count and time.monotonic() > deadline_s:
                names = ", ".join(f"{topic}[{number}]" for topic, number in sorted(left))
                raise LogError(f"nothing came from {names} for {self._stall_timeout_s:g} s: is the broker up?")
            if count and all(self._coming[place] >= end for place, end in left.items()):
                return

    def _sort(self, batch: dict[Place, list[Record]], left: Mapping[Place, int], message: Message) -> bool:
        """Into the batch, or aside if it is past what was asked for. Raises `LogError` for a hole."""
        place, offset = (message.topic() or "", message.partition() or 0), message.offset()
        expected = self._coming.get(place)
        if offset is None or expected is None:
            return False
        if offset != expected:
            raise LogError(f"{place[0]}[{place[1]}] has a hole: offset {expected} is not there, the next is {offset}")
        self._coming[place] = offset + 1
        headers = cast(Headers, message.headers() or ()) if self._headers else ()
        record = Record(offset, message.timestamp()[1], message.key(), message.value(), headers)
        if offset < left.get(place, -1):
            batch.setdefault(place, []).append(record)
            return True
        self._held[place].append(record)
        if len(self._held[place]) >= _HELD_MAX and place not in self._paused:
            self._paused.add(place)
            self._consumer.pause([TopicPartition(*place)])
        return False

    @staticmethod
    def _explain(error: KafkaError, message: Message) -> None:
        """Raises unless librdkafka goes on by itself: then silence has its limit."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise LogError(f"{message.topic()}[{message.partition()}] does not hold offset {message.offset()} any more: {error.str()}")
        if error.fatal() or error.code() not in _PASSING:
            raise KafkaException(error)


@contextmanager
def no_cycles() -> Iterator[None]:
    """Without looking for garbage in cycles: a batch of records makes next to none, and the look takes long over so many."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def bounds(kafka: KafkaSettings, places: Iterable[Place]) -> dict[Place, Range]:
    """First offset and end of each partition. Raises `confluent_kafka.KafkaException`.

    By a consumer of its own: librdkafka lets such a question time out where something is assigned.
    """
    with _asker(kafka) as consumer:
        return {place: _watermarks(consumer, place) for place in places}


def since(kafka: KafkaSettings, times: Mapping[Place, int]) -> dict[Place, Range]:
    """From the first record of each partition that is not older than a time (Unix ms) to the partition's end. Raises as `bounds`."""
    if not times:
        return {}
    asked = [TopicPartition(topic, number, max(0, at_ms)) for (topic, number), at_ms in times.items()]
    with _asker(kafka) as consumer:
        found = {}
        for tp in _again(lambda: _offsets(consumer, asked)):
            low, high = _watermarks(consumer, (tp.topic, tp.partition))
            found[tp.topic, tp.partition] = Range(max(low, tp.offset) if tp.offset >= 0 else high, high)
        return found


@contextmanager
def _asker(kafka: KafkaSettings) -> Iterator[Consumer]:
    consumer = Consumer({**client_config(kafka, "rebuild"), "group.id": "triggers-rebuild"}, logger=LIBRDKAFKA_LOGGER)
    try:
        yield consumer
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, place: Place) -> Range:
    return Range(*_again(lambda: consumer.get_watermark_offsets(TopicPartition(*place), timeout=_REQUEST_TIMEOUT_S)))


def _offsets(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    found = consumer.offsets_for_times(asked, timeout=_REQUEST_TIMEOUT_S)
    for tp in found:
        if tp.error is not None:
            raise KafkaException(tp.error)
    return found


def _again(ask: Callable[[], T]) -> T:
    """Ask until it is answered, while a partition gets its leader. Raises `confluent_kafka.KafkaException`."""
    deadline_s = time.monotonic() + _REQUEST_TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline_s:
                raise
            time.sleep(_MOVING_PAUSE_S)
