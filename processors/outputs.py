"""Outputs of the processors: one librdkafka producer whose reports are counted, not awaited one by one.

An offset is committed only when everything it caused is confirmed, so what is needed is "all that was produced before now is
confirmed" (`flush`), at hundreds of records per loop step. Any failed report, a full queue or a stall ends the process: the producer
leaves no hole (`enable.gapless.guarantee`, no time-out for single records), and a restart repeats from the last commit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from runtime.kafka import LIBRDKAFKA_LOGGER, Headers, producer_config
from runtime.lifecycle import die
from runtime.metrics import PRODUCED
from runtime.settings import KafkaSettings, ProcessorSettings

_POLL_S: Final = 0.1
#: A waiter that missed its wake-up looks again after this long.
_RECHECK_S: Final = 0.5
_EBB_PAUSE_S: Final = 0.005

TopicPartitionKey = tuple[str, int]


class _Epoch:
    """Records produced between two flushes. `sent` is written by the loop's thread only, `done` by the poll thread only."""

    __slots__ = ("done", "loop", "outputs", "sent", "waiter")

    def __init__(self, outputs: Outputs, loop: asyncio.AbstractEventLoop) -> None:
        self.sent = 0
        self.done = 0
        self.outputs = outputs
        self.loop = loop
        self.waiter: asyncio.Future[None] | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:  # poll thread
        if error is not None:
            die(f"a record to {message.topic()} was not delivered: {error}")
        self.done += 1
        self.outputs.done += 1
        if self.waiter is not None and self.done == self.sent:
            self.loop.call_soon_threadsafe(_resolve, self.waiter)

    def report_changelog(self, error: KafkaError | None, message: Message) -> None:  # poll thread
        if error is None:
            place = (message.topic() or "", message.partition() or 0)
            offset = message.offset() or 0
            persisted = self.outputs.confirmed_changelog
            if offset > persisted.get(place, -1):
                persisted[place] = offset
        self.report(error, message)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Outputs:
    """Produces and confirms. Methods belong to the loop's thread; reports are counted in the poll thread."""

    def __init__(self, kafka: KafkaSettings, processor: ProcessorSettings, client_id: str) -> None:
        self._config = producer_config(kafka, client_id=client_id, linger_ms=processor.linger_ms, delivery_timeout_s=0, gapless=True)
        self._stall_timeout_s = processor.stall_timeout_s
        self._unconfirmed_max = processor.unconfirmed_max
        self.sent = 0
        self.done = 0
        #: Highest confirmed changelog offset by (topic, partition), taken by `take_confirmed_changelog`.
        self.confirmed_changelog: dict[TopicPartitionKey, int] = {}
        self._older: deque[_Epoch] = deque()
        self._closing = False

    def start(self) -> None:
        self._producer = Producer({**self._config, "error_cb": self._error}, logger=LIBRDKAFKA_LOGGER)
        self._epoch = _Epoch(self, asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._poll, name="outputs-poll", daemon=True)
        self._thread.start()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        *,
        headers: Headers | None = None,
        timestamp_ms: int = 0,
        changelog: bool = False,
    ) -> None:
        """Queue one record; never blocks. A record that cannot be queued ends the process."""
        epoch = self._epoch
        epoch.sent += 1
        self.sent += 1
        try:
            self._producer.produce(
                topic,
                value,
                key,
                partition,
                on_delivery=epoch.report_changelog if changelog else epoch.report,
                timestamp=timestamp_ms,
                headers=list(headers) if headers else None,
            )
        except (BufferError, KafkaException) as error:
            die(f"a record to {topic} could not be queued: {error}")

    async def flush(self) -> None:
        """Wait until everything produced before this call is confirmed; not for what comes after."""
        loop = asyncio.get_running_loop()
        mine, self._epoch = self._epoch, _Epoch(self, loop)
        self._older.append(mine)
        for epoch in tuple(self._older):
            while epoch.done < epoch.sent:
                if epoch.waiter is None or epoch.waiter.done():
                    epoch.waiter = loop.create_future()
                if epoch.done < epoch.sent:
                    await asyncio.wait((epoch.waiter,), timeout=_RECHECK_S)
            if epoch in self._older:
                self._older.remove(epoch)
                PRODUCED.labels("processors").inc(epoch.sent)

    async def ebb(self) -> None:
        """Back-pressure: wait while more is unconfirmed than may be."""
        while self.sent - self.done > self._unconfirmed_max:  # noqa: ASYNC110 - counted in another thread, per record
            await asyncio.sleep(_EBB_PAUSE_S)

    def take_confirmed_changelog(self) -> dict[TopicPartitionKey, int]:
        """Highest confirmed changelog offsets since the last call. The poll thread may add a higher one meanwhile: next call."""
        return {place: self.confirmed_changelog.pop(place) for place in tuple(self.confirmed_changelog)}

    async def stop(self) -> None:
        await self.flush()
        self._closing = True
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        last_done, since = 0, time.monotonic()
        while not self._closing:
            try:
                self._producer.poll(_POLL_S)
            except KafkaException as error:  # confluent-kafka raises what is fatal here, and does not call `error_cb` with it
                die(f"the producer failed: {error}")
            now = time.monotonic()
            if self.done != last_done or self.done == self.sent:
                last_done, since = self.done, now
            elif now - since > self._stall_timeout_s:
                die(f"no record was confirmed for {self._stall_timeout_s:g} s")

    def _error(self, error: KafkaError) -> None:  # poll thread
        if error.fatal():
            die(f"the producer failed: {error}")
