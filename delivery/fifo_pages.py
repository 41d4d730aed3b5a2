"""Pages of the log for FIFO endpoints that are behind: one consumer for all of them, which belongs to no group and commits nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import KafkaSettings
from schemas.records import Record

#: Records of others looked at for one page: somebody who is far behind lets others read in between.
_LOOKED_AT_MAX: Final = 20_000
_TAKE_MAX: Final = 500
_POLL_S: Final = 0.2
#: No progress for this long means the log cannot be read: the process ends and is started again.
_STALL_TIMEOUT_S: Final = 60.0


class Page(NamedTuple):
    """The records that were asked for among those from the offset asked for to `next_offset` (exclusive)."""

    records: list[Record]
    next_offset: int


#: What librdkafka reports and tries again by itself.
_PASSING: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)

#: Whether a record is wanted: key, value, offset.
Wanted = Callable[[bytes | None, bytes | None, int], bool]


class Pages:
    """Reads one page after the other, each in turn, in a thread of its own. `close` it from the event loop."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="delivery-pages")
        self._consumer: Consumer | None = None
        self._closing = False

    async def read(self, topic: str, partition: int, begin: int, end: int, wanted: Wanted, *, records_max: int, bytes_max: int) -> Page:
        """At most so many records and about so many bytes; none of `end` or above, which must be there already.

        Raises `confluent_kafka.KafkaException`; `LookupError` for what the log does not hold any more; `TimeoutError`.
        """
        work = partial(self._read, topic, partition, begin, end, wanted, records_max, bytes_max)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        self._closing = True

        def end() -> None:
            if self._consumer is not None:
                self._consumer.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, end)
        self._thread.shutdown()

    def _read(self, topic: str, partition: int, begin: int, end: int, wanted: Wanted, records_max: int, bytes_max: int) -> Page:
        consumer = self._open()
        found: list[Record] = []
        offset, size, looked_at, progress_s = begin, 0, 0, time.monotonic()
        consumer.assign([TopicPartition(topic, partition, begin)])
        try:
            while offset < end and len(found) < records_max and size < bytes_max and looked_at < _LOOKED_AT_MAX:
                messages = [] if self._closing else consumer.consume(_TAKE_MAX, _POLL_S)
                for message in messages:
                    if (error := message.error()) is not None:
                        if not error.retriable() and error.code() not in _PASSING:
                            raise KafkaException(error)
                        continue
                    at = message.offset() or 0
                    if at >= end or len(found) >= records_max or size >= bytes_max:
                        break
                    if at != offset:
                        raise LookupError(f"{topic}[{partition}] has no record {offset}; the next one is {at}")
                    offset, looked_at, progress_s = at + 1, looked_at + 1, time.monotonic()
                    if wanted(message.key(), message.value(), at):
                        found.append(_record(message))
                        size += len(found[-1].value or b"")
                if self._closing:
                    raise asyncio.CancelledError
                if time.monotonic() - progress_s > _STALL_TIMEOUT_S:
                    raise TimeoutError(f"{topic}[{partition}] could not be read at offset {offset}")
        finally:
            consumer.unassign()  # nothing is read ahead until it is asked for
        return Page(found, offset)

    def _open(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **client_config(self._kafka, "delivery-pages"),
                    "group.id": "triggers-delivery-pages",  # librdkafka wants one; it is never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",
                    "fetch.wait.max.ms": 50,
                    "queued.max.messages.kbytes": 4_096,
                },
                logger=LIBRDKAFKA_LOGGER,
            )
        return self._consumer


def _record(message: Message) -> Record:
    headers = cast(list[tuple[str, bytes | None]], message.headers() or [])
    return Record(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers)
