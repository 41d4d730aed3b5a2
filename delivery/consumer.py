"""The consumer thread of delivery: one group member over accepted events and all delay topics.

Range assignment over topics of equal partition counts gives one worker the same partitions of all of them, so it alone writes what their
deliveries lead to. Only this thread touches the consumer; the event loop asks it for things and is told of records and rebalances.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.lifecycle import StallGuard, die
from runtime.metrics import COMMITS
from runtime.settings import Settings
from runtime.telemetry import log
from schemas.records import Record
from schemas.topics import DELIVERY_GROUP

_POLL_S: Final = 0.1
_BATCH_MAX: Final = 200
#: Fetched and not handed over, per partition: the memory of a worker with a backlog.
_QUEUED_KBYTES_MAX: Final = 4_096
#: A rebalance waits this long for attempts under way before they are left to the next owner.
_REVOKE_TIMEOUT_S: Final = 15.0
#: Errors after which this member has been replaced or cannot know where it is.
_FATAL: Final = frozenset(
    {
        KafkaError._FATAL,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._MAX_POLL_EXCEEDED,
    }
)


class Owner(Protocol):
    """Who the thread works for. The first two are called in the event loop, `read_tails` in the thread."""

    def read_tails(self, partitions: Sequence[int], committed: Sequence[TopicPartition]) -> Any: ...

    async def assigned(self, committed: Sequence[TopicPartition], tails: Any) -> None: ...

    async def revoked(self, *, lost: bool) -> Sequence[TopicPartition]: ...

    def records(self, topic: str, partition: int, records: Sequence[Record]) -> None: ...


class ConsumerThread:
    """Runs the consumer until `stop`. Started and stopped from the event loop."""

    def __init__(self, settings: Settings, topics: Sequence[str], owner: Owner, guard: StallGuard) -> None:
        self._topics = list(topics)
        self._owner = owner
        self._guard = guard
        self._asked: SimpleQueue[Callable[[Consumer], None]] = SimpleQueue()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="delivery-consumer", daemon=True)
        self._config = {
            **client_config(settings.kafka, f"delivery-{settings.delivery.slot}"),
            "group.id": DELIVERY_GROUP,
            "group.instance.id": f"{DELIVERY_GROUP}-{settings.delivery.slot}",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": int(settings.kafka.session_timeout_s * 1000),
            "heartbeat.interval.ms": int(settings.kafka.heartbeat_interval_s * 1000),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Lost offsets must never send the whole history again: the admin step gives a new group its first ones.
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": _QUEUED_KBYTES_MAX,
            "fetch.wait.max.ms": 50,
            "topic.metadata.refresh.interval.ms": 30_000,
            "error_cb": self._error,
            "on_commit": self._on_commit,
        }

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Leave the group: what is assigned is revoked first (see `Owner.revoked`)."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    def pause(self, topic: str, partition: int) -> None:
        self._ask(lambda consumer: _if_ours(consumer, consumer.pause, topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self._ask(lambda consumer: _if_ours(consumer, consumer.resume, topic, partition))

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Asynchronous; what became of it is counted."""

        def commit(consumer: Consumer) -> None:
            ours = {(tp.topic, tp.partition) for tp in consumer.assignment()}
            if kept := [tp for tp in offsets if (tp.topic, tp.partition) in ours]:
                consumer.commit(offsets=kept, asynchronous=True)

        self._ask(commit)

    def _ask(self, work: Callable[[Consumer], None]) -> None:
        self._asked.put(work)

    def _run(self) -> None:
        try:
            consumer = Consumer(self._config, logger=LIBRDKAFKA_LOGGER)
            consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
            while not self._stopping.is_set():
                self._do_asked(consumer)
                first = consumer.poll(_POLL_S)
                if first is not None:
                    self._hand_over([first, *consumer.consume(_BATCH_MAX, 0)])
            consumer.close()
        except BaseException as error:  # noqa: BLE001 - a thread that ended in silence would be a worker that does nothing
            die(f"the consumer failed: {error!r}")

    def _do_asked(self, consumer: Consumer) -> None:
        while True:
            try:
                work = self._asked.get_nowait()
            except Empty:
                return
            try:
                work(consumer)
            except KafkaException as error:
                self._judge(error.args[0])

    def _hand_over(self, messages: Sequence[Message]) -> None:
        batches: dict[tuple[str, int], list[Record]] = {}
        for message in messages:
            if (error := message.error()) is not None:
                self._judge(error)
                continue
            place = (message.topic() or "", message.partition() or 0)
            batches.setdefault(place, []).append(
                Record(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), _headers(message))
            )
        for (topic, partition), records in batches.items():
            self._loop.call_soon_threadsafe(self._owner.records, topic, partition, records)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """In the consumer thread: read what earlier owners left, then let the loop take over, then begin at the committed offsets."""
        committed = consumer.committed(partitions, timeout=30.0) if partitions else []
        tails = self._owner.read_tails(sorted({tp.partition for tp in partitions}), committed)
        self._wait(self._owner.assigned(committed, tails), None)
        consumer.assign([TopicPartition(tp.topic, tp.partition, tp.offset) for tp in committed])

    def _on_revoke(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        final = self._wait(self._owner.revoked(lost=False), _REVOKE_TIMEOUT_S + 5)
        self._forget_asked()
        if final:
            self._guard.check()
            try:
                consumer.commit(offsets=list(final), asynchronous=False)
            except KafkaException as error:
                log.warning("commit.refused", error=str(error))

    def _forget_asked(self) -> None:
        """What was asked for lanes that are gone: a pause would hold a partition that has come back, with nobody to resume it."""
        with suppress(Empty):
            while True:
                self._asked.get_nowait()

    def _on_lost(self, _consumer: Consumer, _: list[TopicPartition]) -> None:
        self._wait(self._owner.revoked(lost=True), _REVOKE_TIMEOUT_S + 5)
        self._forget_asked()

    def _wait(self, work: Awaitable[Any], timeout_s: float | None) -> Any:
        async def whole() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(whole(), self._loop).result(timeout_s)

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        COMMITS.labels(DELIVERY_GROUP, "ok" if error is None else "refused").inc()
        if error is not None:
            self._judge(error)

    def _error(self, error: KafkaError) -> None:
        self._judge(error)

    @staticmethod
    def _judge(error: KafkaError) -> None:
        if error.fatal() or error.code() in _FATAL:
            die(
                f"the consumer cannot go on: {error.name()}: {error.str()}. If offsets were lost, run `triggers topics` and read its advice"
            )
        log.warning("kafka.consumer", code=error.name(), error=error.str())


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    return cast(list[tuple[str, bytes | None]], message.headers() or [])


def _if_ours(consumer: Consumer, change: Callable[[list[TopicPartition]], None], topic: str, partition: int) -> None:
    if any(tp.topic == topic and tp.partition == partition for tp in consumer.assignment()):
        change([TopicPartition(topic, partition)])
