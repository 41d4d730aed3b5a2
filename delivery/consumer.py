"""The consumer thread of delivery: one group member over accepted events, which takes the other topics of its partitions along.

The group shares out the partitions of `events.accepted` alone; whoever owns one reads the same partition of every other source, so it
alone writes what their deliveries lead to. Rebalances are cooperative: only partitions that move are given back (ADR 13). Only this thread
touches the consumer; the event loop asks it for things and is told of records and rebalances.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.lifecycle import StallGuard, die
from runtime.metrics import COMMITS
from runtime.settings import Settings
from runtime.telemetry import log
from schemas.records import Record
from schemas.topics import DELIVERY_GROUP, is_retry_topic

_POLL_S: Final = 0.1
_BATCH_MAX: Final = 200
#: Fetched and not handed over, per partition: the memory of a worker with a backlog.
_QUEUED_KBYTES_MAX: Final = 4_096
_REQUEST_TIMEOUT_S: Final = 30.0
#: Longer than the owner itself waits for attempts under way: then something is stuck.
_REVOKE_GRACE_S: Final = 15.0
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

    async def revoked(self, partitions: Collection[int], *, lost: bool) -> Sequence[TopicPartition]: ...

    def records(self, topic: str, partition: int, records: Sequence[Record]) -> None: ...


class _Asked(NamedTuple):
    """Something to do with the consumer, for the sake of one partition."""

    partition: int
    work: Callable[[Consumer], None]


class ConsumerThread:
    """Runs the consumer until `stop`. Started and stopped from the event loop."""

    def __init__(self, settings: Settings, topics: Sequence[str], owner: Owner, guard: StallGuard) -> None:
        """`topics`: all sources; the group shares out the partitions of the first."""
        self._topics = list(topics)
        self._owner = owner
        self._guard = guard
        self._revoke_timeout_s = settings.delivery.shutdown_timeout_s + _REVOKE_GRACE_S
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="delivery-consumer", daemon=True)
        self._asking = {**client_config(settings.kafka, "delivery-topics"), "group.id": DELIVERY_GROUP, "enable.auto.commit": False}
        self._config = {
            **client_config(settings.kafka, f"delivery-{settings.delivery.slot}"),
            "group.id": DELIVERY_GROUP,
            "group.instance.id": f"{DELIVERY_GROUP}-{settings.delivery.slot}",
            "partition.assignment.strategy": "cooperative-sticky",
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
        self._asked.put(_Asked(partition, lambda consumer: _if_ours(consumer, consumer.pause, topic, partition)))

    def resume(self, topic: str, partition: int) -> None:
        self._asked.put(_Asked(partition, lambda consumer: _if_ours(consumer, consumer.resume, topic, partition)))

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Asynchronous; what became of it is counted. The offsets of one partition go together."""
        for partition in {tp.partition for tp in offsets}:
            mine = [tp for tp in offsets if tp.partition == partition]
            self._asked.put(_Asked(partition, lambda consumer, mine=mine: consumer.commit(offsets=mine, asynchronous=True)))  # type: ignore[misc]  # a bound default is not inferred

    def _run(self) -> None:
        try:
            consumer = Consumer(self._config, logger=LIBRDKAFKA_LOGGER)
            consumer.subscribe(self._topics[:1], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
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
                asked = self._asked.get_nowait()
            except Empty:
                return
            try:
                asked.work(consumer)
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
        whole = self._whole(partitions)
        if whole:
            self._refuse_unread(partitions)
            committed = consumer.committed(whole, timeout=_REQUEST_TIMEOUT_S)
            tails = self._owner.read_tails(sorted({tp.partition for tp in partitions}), committed)
            self._wait(self._owner.assigned(committed, tails), None)
            whole = [TopicPartition(tp.topic, tp.partition, tp.offset) for tp in committed]
        consumer.incremental_assign(whole)

    def _refuse_unread(self, partitions: Sequence[TopicPartition]) -> None:
        """Retries on a delay topic that this worker does not know would wait for as long as it owns their partition.

        By a client of its own: a client that is asked for metadata in a call-back forgets that it is in one, and the next call-back of the
        same poll ends the process (confluent-kafka 2.16, `CallState_end` in `list_topics`).
        """
        asking = Consumer(self._asking, logger=LIBRDKAFKA_LOGGER)
        try:
            topics = asking.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
            strange = [name for name in topics if is_retry_topic(name) and name not in self._topics]
            places = [TopicPartition(name, tp.partition) for name in strange for tp in partitions]
            for place in asking.committed(places, timeout=_REQUEST_TIMEOUT_S) if places else ():
                low, high = asking.get_watermark_offsets(place, timeout=_REQUEST_TIMEOUT_S)
                if max(low, place.offset) < high:
                    die(
                        f"{place.topic}[{place.partition}] holds retries and is none of this worker's delay topics: every worker must run "
                        "with the same TRIGGERS_DELIVERY__DELAYS_S, and a delay is only taken out when its topic has been read to its end"
                    )
        finally:
            asking.close()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {tp.partition for tp in partitions}
        final = self._wait(self._owner.revoked(gone, lost=False), self._revoke_timeout_s)
        self._forget_asked(gone)
        if final:
            self._guard.check()
            try:
                consumer.commit(offsets=list(final), asynchronous=False)
            except KafkaException as error:
                log.warning("commit.refused", error=str(error))
        consumer.incremental_unassign(self._whole(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {tp.partition for tp in partitions}
        self._wait(self._owner.revoked(gone, lost=True), self._revoke_timeout_s)
        self._forget_asked(gone)
        consumer.incremental_unassign(self._whole(partitions))

    def _whole(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        """These partitions of every source."""
        return [TopicPartition(topic, tp.partition) for tp in partitions for topic in self._topics]

    def _forget_asked(self, gone: Collection[int]) -> None:
        """What was asked for lanes that are gone: a pause would hold a partition that has come back, with nobody to resume it."""
        asked: list[_Asked] = []
        try:
            while True:
                asked.append(self._asked.get_nowait())
        except Empty:
            for one in asked:
                if one.partition not in gone:
                    self._asked.put(one)

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
                f"the consumer cannot go on: {error.name()}: {error.str()}. If what was not read yet is gone from the log, decide where "
                "deliveries go on: `triggers lost-offsets --help`"
            )
        log.warning("kafka.consumer", code=error.name(), error=error.str())


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    return cast(list[tuple[str, bytes | None]], message.headers() or [])


def _if_ours(consumer: Consumer, change: Callable[[list[TopicPartition]], None], topic: str, partition: int) -> None:
    if any(tp.topic == topic and tp.partition == partition for tp in consumer.assignment()):
        change([TopicPartition(topic, partition)])
