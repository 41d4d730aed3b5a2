"""Reading what earlier owners of a partition left in the log, before a new owner does anything with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from delivery.fifo_places import Found
from delivery.journal import Checkpoint, Journal, Leg, Page, places, read_checkpoint
from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from runtime.telemetry import log
from schemas import codec
from schemas.codec import CodecError
from schemas.deliveries import Planned, Recovery, Replay, Requested
from schemas.ids import EndpointId
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, DELIVERIES_FIFO, DELIVERIES_REQUESTS, EVENTS_ACCEPTED

_REQUEST_TIMEOUT_S: Final = 30.0
#: No progress for this long means the log cannot be read: the caller's process ends and is started again.
_STALL_TIMEOUT_S: Final = 60.0
_BATCH_MAX: Final = 1_000
_RETRY_PAUSE_S: Final = 0.5
#: What a client meets while a broker starts or a leader moves.
_TRANSIENT: Final = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)


class Tail(NamedTuple):
    """What is known of one partition. `ends`: topic → its end when it was read, sources of deliveries among them."""

    checkpoint: Checkpoint
    journal: Journal
    ends: dict[str, int]
    fifo: Found


Tails = dict[int, Tail]


class TailReader:
    """Reads the tails of all topics that deliveries write to, for some partitions."""

    def __init__(self, kafka: KafkaSettings, retry_topics: Sequence[str], memory_ms: int) -> None:
        self._kafka = kafka
        self._topics = [DELIVERIES_ATTEMPTS, *retry_topics, DELIVERIES_DEAD, DELIVERIES_REQUESTS, DELIVERIES_FIFO]
        self._memory_ms = memory_ms

    def read(
        self, partitions: Sequence[int], committed: Sequence[TopicPartition], now_ms: int, told_to_stop: Callable[[], bool]
    ) -> Tails | None:
        """Journals by partition; None where it was told to stop. A broker that is coming back is waited for.

        Raises `confluent_kafka.KafkaException`, `TimeoutError`.
        """
        log.info("tails.reading", partitions=list(partitions))
        deadline_s = time.monotonic() + _STALL_TIMEOUT_S
        while not told_to_stop():
            try:
                return self._read_all(partitions, committed, now_ms, told_to_stop)
            except KafkaException as error:
                if error.args[0].code() not in _TRANSIENT or time.monotonic() > deadline_s:
                    raise
                log.warning("tails.waiting", error=str(error))
                time.sleep(_RETRY_PAUSE_S)
        return None

    def _read_all(
        self, partitions: Sequence[int], committed: Sequence[TopicPartition], now_ms: int, told_to_stop: Callable[[], bool]
    ) -> Tails | None:
        tails: Tails = {}
        for tp in committed:
            if tp.topic == EVENTS_ACCEPTED:
                tails[tp.partition] = Tail(read_checkpoint(tp.metadata), Journal(self._memory_ms), {}, Found())
        if not tails:
            return tails
        consumer = Consumer(
            {**client_config(self._kafka, "delivery-tails"), "group.id": "triggers-delivery-tails", "enable.auto.commit": False},
            logger=LIBRDKAFKA_LOGGER,
        )
        began_s, count = time.monotonic(), 0
        try:
            begin: list[TopicPartition] = []
            for partition in sorted(set(partitions) & tails.keys()):
                checkpoint, journal, ends, fifo = tails[partition]
                low: dict[str, int] = {}
                for topic in (EVENTS_ACCEPTED, *self._topics):
                    low[topic], ends[topic] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_REQUEST_TIMEOUT_S)
                del low[EVENTS_ACCEPTED]
                for topic, offset in places(checkpoint, low).items():
                    if topic == DELIVERIES_ATTEMPTS:
                        fifo.begin, fifo.end = offset, ends[topic]
                    if topic != DELIVERIES_FIFO:  # read whole each time: it has no place in the checkpoint
                        journal.read_until(topic, ends[topic])
                    if offset < ends[topic]:
                        begin.append(TopicPartition(topic, partition, offset))
            read = self._read(consumer, begin, tails, now_ms, told_to_stop)
            if read is None:
                return None
            count = read
        finally:
            consumer.close()
        log.info("tails.read", partitions=list(partitions), records=count, duration_s=round(time.monotonic() - began_s, 3))
        return tails

    def _read(
        self, consumer: Consumer, begin: list[TopicPartition], tails: Tails, now_ms: int, told_to_stop: Callable[[], bool]
    ) -> int | None:
        consumer.assign(begin)
        left = {(tp.topic, tp.partition): tails[tp.partition].ends[tp.topic] for tp in begin}
        count, progress_s = 0, time.monotonic()
        while left:
            if told_to_stop():
                return None
            messages = consumer.consume(_BATCH_MAX, 0.2)
            for message in messages:
                if (error := message.error()) is not None:
                    if not error.retriable():
                        raise KafkaException(error)
                    continue
                place = (message.topic() or "", message.partition() or 0)
                offset = message.offset() or 0
                if place not in left or offset >= left[place]:
                    left.pop(place, None)
                    continue
                self._read_one(tails[place[1]], place[0], offset, message, now_ms)
                count += 1
                if offset + 1 >= left[place]:
                    del left[place]
            if messages:
                progress_s = time.monotonic()
            elif time.monotonic() - progress_s > _STALL_TIMEOUT_S:
                raise TimeoutError(f"the tails of {sorted(left)} could not be read")
        return count

    def _read_one(self, tail: Tail, topic: str, offset: int, message: Message, now_ms: int) -> None:
        """What cannot be read is no fact of ours: whoever wrote it, the project processor parks it."""
        try:
            value = message.value()
            if topic == DELIVERIES_FIFO:
                endpoint_id = EndpointId((message.key() or b"").decode())
                tail.fifo.add_position(endpoint_id, None if value is None else codec.fifo_position.decode(value))
            else:
                learn(tail.journal, topic, offset, value, now_ms, tail.fifo)
        except CodecError as error:
            log.warning("tail.unreadable", topic=topic, offset=offset, reason=error.reason)


def learn(journal: Journal, topic: str, offset: int, value: bytes | None, now_ms: int, fifo: Found | None = None) -> None:
    """A record that some owner wrote, as facts; plans for `fifo`, too. Raises `schemas.codec.CodecError`."""
    if topic == DELIVERIES_ATTEMPTS:
        entry = codec.journal.decode(value)
        if isinstance(entry, Planned):
            journal.add_plan(topic, offset, entry, now_ms)
            if fifo is not None:
                fifo.add_plan(offset, entry)
        elif isinstance(entry, Requested):
            journal.add_asked(topic, offset, entry, now_ms)
        else:
            journal.add_attempt(topic, offset, entry, now_ms)
    elif topic == DELIVERIES_DEAD:
        letter = codec.dead_letter.decode(value)
        journal.add_dead(topic, offset, (letter.event_id, letter.endpoint_id, letter.round), now_ms)
        if letter.history:
            journal.settle((letter.event_id, letter.endpoint_id, letter.history[-1].attempt, letter.round))
    elif topic == DELIVERIES_REQUESTS:
        request = codec.request.decode(value)
        if isinstance(request, Recovery):
            journal.add_page(topic, offset, Page(request.round, request.page), now_ms)
        elif isinstance(request, Replay):
            journal.add_page(topic, offset, Page(request.round, request.page, request.endpoint_id), now_ms)
    else:
        task = codec.retry_task.decode(value)
        journal.add_leg(topic, offset, Leg(task.event_id, task.endpoint_id, task.attempt, task.hop, task.round), now_ms)
