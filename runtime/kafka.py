"""The producer every process uses: one librdkafka producer, asked for its delivery reports by the event loop itself.

No thread polls: a thread would have to take the interpreter's lock from the event loop for each report, and hand it back for each answer.
Not `confluent_kafka.aio`: it hops through an executor per call, waits for a batch by default and takes no headers
(measured: 63 against 24,000 records/s). Keys are placed by murmur2, as Kafka's own clients and Faust place them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from runtime.lifecycle import die
from runtime.metrics import PRODUCE_FAILURES, PRODUCED
from runtime.settings import KafkaSettings
from runtime.telemetry import log
from schemas.topics import EVENTS_INGESTED, MESSAGE_BYTES_MAX

#: librdkafka's own lines become JSON lines of ours (see `runtime.telemetry`).
LIBRDKAFKA_LOGGER: Final = logging.getLogger("librdkafka")

Headers = Sequence[tuple[str, bytes | None]]
OnReport = Callable[["Report | AppendError"], None]
Outcome = Literal["not_appended", "unknown"]

#: How often librdkafka is asked while records are under way, at most and at least, and while none are (for errors).
_POLL_S: Final = 0.001
_POLL_SLOW_S: Final = 0.01
_POLL_IDLE_S: Final = 0.1
#: Between the two: this part of the time since the last report. A broker that is slow, far or away is not asked for each time in vain.
_POLL_SHARE: Final = 0.25
_CLOSE_TIMEOUT_S: Final = 10.0
#: Local refusals and broker answers after which the record is certainly not in the log. Everything else may be; also what librdkafka
#: throws out of its queue after a fatal error (`_PURGE_QUEUE`), where records wait to be sent again as well.
_NOT_APPENDED: Final = frozenset(
    {
        KafkaError._QUEUE_FULL,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._INVALID_ARG,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Report(NamedTuple):
    """Where a record went. `timestamp_ms` is the broker's append time on LogAppendTime topics, else the producer's."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class AppendError(Exception):
    """An append failed. `outcome` says whether the record may be in the log all the same."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome: Outcome = outcome
        self.detail = detail


def client_config(kafka: KafkaSettings, client: str) -> dict[str, Any]:
    """What every librdkafka client of ours starts from."""
    return {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": f"triggers-{client}",
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "log.connection.close": False,
    }


def producer_config(kafka: KafkaSettings, *, client_id: str, linger_ms: float, delivery_timeout_s: float, gapless: bool) -> dict[str, Any]:
    """librdkafka's settings. `gapless`: no record is ever given up alone, because one left out while later ones go through is a hole."""
    config: dict[str, Any] = {
        **client_config(kafka, client_id),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2",
        "linger.ms": linger_ms,
        "message.timeout.ms": 0 if gapless else int(delivery_timeout_s * 1000),
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 262_144,
    }
    if gapless:
        config["enable.gapless.guarantee"] = True
    return config


class Bus:
    """Sends records and answers each with its delivery report. All methods belong to the event loop's thread.

    With `gapless`, any failed report or a stall of `stall_timeout_s` ends the process: what follows a hole must not be produced.
    Without it a failure is the future's exception, and a fatal producer error also calls `on_fatal` and leaves `ready` False.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        client_id: str,
        linger_ms: float = 0,
        delivery_timeout_s: float = 5.0,
        gapless: bool = False,
        stall_timeout_s: float = 60.0,
        on_fatal: Callable[[str], None] | None = None,
    ) -> None:
        self._config = producer_config(
            kafka, client_id=client_id, linger_ms=linger_ms, delivery_timeout_s=delivery_timeout_s, gapless=gapless
        )
        self._gapless = gapless
        self._stall_timeout_s = stall_timeout_s
        self._on_fatal = on_fatal
        self._closing = False
        self._fatal: str | None = None
        self._brokers_down = False
        self._outstanding: set[asyncio.Future[Report]] = set()
        #: Records of `post` under way, and who waits until there are none.
        self._posted = 0
        self._none_posted: asyncio.Future[None] | None = None
        self._producer: Producer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The next poll, whether it comes soon, and when the last report came or the first record after a pause was sent.
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        self._progress_s = 0.0
        #: Records confirmed in the poll under way, by topic.
        self._confirmed: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        """Started, not fatally failed, and at least one broker is connected as far as librdkafka knows."""
        return self._producer is not None and self._fatal is None and not self._brokers_down

    @property
    def outstanding(self) -> int:
        """Records sent and not yet reported."""
        return len(self._outstanding) + self._posted

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer({**self._config, "error_cb": self._error}, logger=LIBRDKAFKA_LOGGER)
        self._progress_s = time.monotonic()
        self._poll_in(_POLL_IDLE_S)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        *,
        headers: Headers = (),
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> asyncio.Future[Report]:
        """Queue one record; never blocks. Raises `AppendError("not_appended")` if it cannot even be queued."""
        future: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._produce(topic, value, key, headers, partial(self._reported, future), partition, timestamp_ms)
        self._outstanding.add(future)
        return future

    def post(self, topic: str, value: bytes, key: bytes, headers: Headers, on_report: OnReport) -> None:
        """As `send`; `on_report` is called once with what `send`'s future gets, never before this returns. It may not raise."""
        self._produce(topic, value, key, headers, partial(self._post_reported, on_report))
        self._posted += 1

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        on_delivery: Callable[[KafkaError | None, Message], None],
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> None:
        if self._producer is None:
            raise AppendError("not_appended", "the producer is not started")
        if self._fatal is not None:
            raise AppendError("not_appended", f"the producer failed: {self._fatal}")
        carried: Any = list(headers) if headers else None
        try:
            self._producer.produce(topic, value, key, partition, on_delivery=on_delivery, timestamp=timestamp_ms, headers=carried)
        except BufferError as error:
            if self._gapless:
                die(f"producer queue full: {error}")
            raise AppendError("not_appended", "too many records are waiting for the broker") from error
        except KafkaException as error:
            if self._gapless:
                die(f"produce to {topic} refused: {error}")
            raise AppendError("not_appended", str(error)) from error
        if not self._hurried:
            self._hurried = True
            self._progress_s = time.monotonic()
            self._poll_in(_POLL_S)

    async def reachable(self, timeout_s: float) -> bool:
        """Whether a broker answers a metadata request within `timeout_s`: for readiness, not for the path of an event."""
        producer = self._producer
        if producer is None or self._fatal is not None:
            return False
        try:
            await asyncio.to_thread(producer.list_topics, EVENTS_INGESTED, timeout_s)
        except KafkaException:
            return False
        self._brokers_down = False
        return True

    async def flush(self) -> None:
        """Wait for the report of everything sent before this call; failures stay with their futures."""
        if pending := self._pending():
            await asyncio.wait(pending)

    async def stop(self) -> None:
        """Wait a bounded time for what is outstanding, then poll no more."""
        if pending := self._pending():
            await asyncio.wait(pending, timeout=_CLOSE_TIMEOUT_S)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()

    def _pending(self) -> Sequence[asyncio.Future[Any]]:
        """What is under way. What was posted is one thing: over when nothing posted is under way any more."""
        if not self._posted:
            return tuple(self._outstanding)
        if self._none_posted is None:
            self._none_posted = asyncio.get_running_loop().create_future()
        return (*self._outstanding, self._none_posted)

    def _poll_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None and not self._closing:
            self._timer = self._loop.call_later(seconds, self._poll)

    def _poll(self) -> None:
        producer, now_s = self._producer, time.monotonic()
        if producer is None or self._closing:
            return
        waiting = self.outstanding
        try:
            producer.poll(0)
        except KafkaException as error:  # confluent-kafka raises what is fatal here, and does not call `error_cb` with it
            self._error(error.args[0])  # what was under way is still reported
        finally:
            self._again(now_s, progress=self.outstanding < waiting)

    def _again(self, now_s: float, *, progress: bool) -> None:
        """After a poll: count what it confirmed, and settle when the next one is due."""
        for topic, count in self._confirmed.items():
            PRODUCED.labels(topic).inc(count)
        self._confirmed.clear()
        if progress:
            self._progress_s = now_s
        self._hurried = self.outstanding > 0
        if not self._hurried:
            self._poll_in(_POLL_IDLE_S)
            return
        stood_s = now_s - self._progress_s
        self._poll_in(min(max(_POLL_S, stood_s * _POLL_SHARE), _POLL_SLOW_S))
        if self._gapless and stood_s > self._stall_timeout_s:
            die(f"no record was delivered for {self._stall_timeout_s:g} s")

    def _reported(self, future: asyncio.Future[Report], error: KafkaError | None, message: Message) -> None:
        """librdkafka's report of one record, within `_poll`."""
        self._outstanding.discard(future)
        report = self._report(error, message)
        if future.done():
            return
        if isinstance(report, Report):
            future.set_result(report)
        else:
            future.set_exception(report)
            future.exception()  # a caller that went away need not be told

    def _post_reported(self, on_report: OnReport, error: KafkaError | None, message: Message) -> None:
        self._posted -= 1
        if not self._posted and self._none_posted is not None:
            self._none_posted.set_result(None)
            self._none_posted = None
        on_report(self._report(error, message))

    def _report(self, error: KafkaError | None, message: Message) -> Report | AppendError:
        topic = message.topic() or ""
        if error is None:
            self._brokers_down = False
            self._confirmed[topic] = self._confirmed.get(topic, 0) + 1
            return Report(topic, message.partition() or 0, message.offset() or 0, message.timestamp()[1])
        PRODUCE_FAILURES.labels(topic).inc()
        if self._gapless:
            die(f"a record to {topic} was not delivered: {error}")
        return AppendError("not_appended" if error.code() in _NOT_APPENDED else "unknown", error.str())

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            if self._gapless:
                die(f"the producer failed: {error}")
            if self._fatal is None and self._loop is not None:
                self._fatal = error.str()
                if self._on_fatal is not None:
                    self._loop.call_soon(self._on_fatal, error.str())
            return
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._brokers_down = True
        log.warning("kafka.producer", client=self._config["client.id"], code=error.name(), error=error.str())
