"""Our Faust transport: what makes Faust safe (it never commits past work that is not confirmed) and fast (one event per batch).

Stock Faust commits past records in flight, commits while outputs are still buffered, drops what is delivered between a seek and the
clearing of the stream queues, and spends four tasks on each record. This module replaces exactly those paths and nothing else:

* delivery: one task per fetch, one event per up to `batch_size_max` records of a partition, offsets checked as a chain;
* offsets: a queue of delivered batches per partition; the committed offset is the end of its acknowledged prefix, never beyond;
* seeks: always explicit, from the group's committed offset, the earliest offset where nothing is committed, or the projection's own;
* the producer (`processors.producer`): `processors.outputs`, so a commit waits for the reports of everything its offsets caused.

Not here: table recovery (`processors.tables`), what agents do (`processors.agents`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError as AiokafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from processors.outputs import Outputs
from processors.producer import Producer
from processors.tables import MarkerTable
from runtime.crashpoints import reach
from runtime.lifecycle import die
from runtime.metrics import COMMITS
from runtime.settings import ProcessorSettings
from runtime.telemetry import log

StartOffsets = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]

#: Seeks back in a row over one partition before its hole is believed: a stale batch from before a seek is normal, this many are not.
_HOLES_MAX: Final = 20
_FETCH_TIMEOUT_S: Final = 1.0
_REBALANCE_PAUSE_S: Final = 0.02


class Batch(list[ConsumerRecord]):
    """The value of one event: records of one partition with contiguous offsets. The event's message is the last of them.

    `epoch` counts the seeks of the partition: batches queued before a seek are delivered again after it.
    """

    epoch: int = 0

    @classmethod
    def from_data(cls, data: Any, *, preferred_type: Any = None) -> Any:  # the interface Faust's registry expects of a value type
        return data


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the broker, with our fetch wait and a look at committed offsets."""

    consumer: Any

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.consumer.processor.fetch_wait_ms_max  # Faust fixes 1,500
        return consumer

    async def committed(self, partitions: set[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        return {tp: await consumer.committed(driver.ensure_aiokafka_TP(tp)) for tp in partitions}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        done = await super().commit(offsets)
        COMMITS.labels(self.app.conf.id, "ok" if done else "refused").inc()
        return bool(done)


class Consumer(driver.Consumer):
    """Hands batches to agents and keeps what may be committed."""

    # Faust's interface types do not name what its classes have.
    app: Any
    transport: Any
    _thread: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Last offsets of delivered batches, oldest first.
        self._delivered: defaultdict[TP, deque[int]] = defaultdict(deque)
        self._watermark: dict[TP, int] = {}
        #: Next offset that may be delivered; absent before the first seek of an assignment.
        self._expected: dict[TP, int] = {}
        #: Highest offset asked to be committed, and highest known to be committed.
        self._requested: dict[TP, int] = {}
        self._committed_past: dict[TP, int] = {}
        self._holes: defaultdict[TP, int] = defaultdict(int)
        self._epoch: defaultdict[TP, int] = defaultdict(int)
        super().__init__(*args, **kwargs)

    @property
    def processor(self) -> ProcessorSettings:
        return cast(ProcessorSettings, self.transport.processor)

    @property
    def outputs(self) -> Outputs:
        return cast(Outputs, self.transport.outputs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- offsets

    def _new_offset(self, tp: TP) -> int | None:
        """The end of the acknowledged prefix. Cython inlines `Consumer.ack`, so `_acked_index` is the interface to acknowledgements."""
        delivered, acked = self._delivered[tp], self._acked_index[tp]
        self._acked[tp].clear()
        while delivered and delivered[0] in acked:
            last = delivered.popleft()
            acked.discard(last)
            self._watermark[tp] = last + 1
        return self._watermark.get(tp)

    def committed_past(self, tp: TP) -> int:
        """The next offset known to be committed for `tp`: everything below it will not be seen again."""
        return self._committed_past.get(tp, 0)

    async def commit_before(self, tp: TP, offset: int) -> bool:
        """Confirm everything produced so far and commit `tp` up to `offset` (exclusive), within a batch. False after a rebalance."""
        await self.app.producer.flush()
        return bool(await self._commit({tp: offset}))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commits never go back: one chosen before `commit_before` and sent after it is dropped."""
        ahead = {tp: offset for tp, offset in offsets.items() if offset >= self._requested.get(tp, 0)}
        if not ahead:
            return True
        self.transport.guard()
        reach(f"{self.app.conf.id}.before_commit")
        self._requested.update(ahead)
        generation = self.app.consumer_generation_id
        done = bool(await super()._commit(ahead))
        if done and self.app.consumer_generation_id == generation:
            for tp, offset in ahead.items():
                self._committed_past[tp] = max(offset, self.committed_past(tp))
        return done

    def _forget(self, partitions: Mapping[TP, int] | set[TP]) -> None:
        for tp in partitions:
            for kept in (
                self._delivered,
                self._watermark,
                self._acked,
                self._acked_index,
                self._expected,
                self._requested,
                self._committed_past,
            ):
                kept.pop(tp, None)
            self._epoch[tp] += 1

    @property
    def expected(self) -> Mapping[TP, int]:
        """The next offset each owned partition will deliver."""
        return self._expected

    def has_delivered(self, tp: TP) -> bool:
        """Whether an agent has, or is about to get, records of `tp` that are not acknowledged."""
        return bool(self._delivered[tp])

    def end_of(self, tp: TP) -> int | None:
        """The end of a partition as the last fetch saw it."""
        return self.highwater(tp) if tp in self.assignment() else None

    def is_current(self, tp: TP, batch: Batch) -> bool:
        """Whether what `batch` causes may still be acknowledged: the partition is ours and was not sought since it was delivered."""
        return tp in self._expected and batch.epoch == self._epoch[tp] and not self.app.should_stop

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        self._forget(revoked)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Every seek of Faust comes through here. Nothing committed means the beginning, said explicitly (aiokafka would not seek)."""
        streams = {tp for tp in self.assignment() if self.app.topics.acks_enabled_for(tp.topic)}
        if not streams:
            return {}
        start_offsets: StartOffsets | None = self.transport.start_offsets
        if start_offsets is not None:
            offsets = dict(await start_offsets(streams))
        else:
            committed = await self._thread.call_thread(self._thread.committed, streams)
            offsets = {tp: offset for tp, offset in committed.items() if offset is not None}
            if fresh := streams - offsets.keys():
                offsets.update(await self._thread.earliest_offsets(*fresh))
        await self._thread.seek_wait(offsets)
        self._forget(offsets)
        self._expected.update(offsets)
        self._committed_past.update(offsets)
        return offsets

    async def seek_back(self) -> None:
        """Give up what was delivered and not acknowledged and start again from the committed offsets."""
        try:
            await self.perform_seek()
        except (TimeoutError, AiokafkaError) as error:
            log.warning("seek_back.failed", app=self.app.conf.id, error=repr(error))

    # -- delivery

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Between a seek and the clearing of the stream queues at the end of recovery no event may be delivered: it would be lost."""
        if self.app.rebalancing and active_partitions is not None:
            active_partitions = {tp for tp in active_partitions if self._is_changelog_tp(tp)}
            if not active_partitions:
                await asyncio.sleep(_REBALANCE_PAUSE_S)
                return {}
        return await super()._getmany(active_partitions, timeout)

    async def _drain_messages(self, fetcher: Any) -> None:
        """The fetch loop: one delivery task per fetch, cancelled when the flow is suspended by a rebalance."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                records, _ = await self._wait_next_records(_FETCH_TIMEOUT_S)
                generation = self.app.consumer_generation_id
                if self.should_stop:
                    return
                if not self.flow_active:
                    if records is not None:
                        await self._give_back(records)
                        await self.seek_back()
                    continue
                if not records:
                    await asyncio.sleep(0)
                    continue
                await self._deliver_unless_suspended(records, generation)
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise

    async def _deliver_unless_suspended(self, records: Any, generation: int) -> None:
        work = asyncio.ensure_future(self._deliver(records, generation))
        suspended = asyncio.ensure_future(self.suspend_flow.wait())
        try:
            await asyncio.wait((work, suspended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            suspended.cancel()
            if not work.done():
                work.cancel()
            await asyncio.wait((work,))
        if work.cancelled():
            await self._give_back(records)
        elif (error := work.exception()) is not None:
            raise error

    async def _deliver(self, records: Mapping[Any, list[ConsumerRecord]], generation: int) -> None:
        by_tp = {TP(place.topic, place.partition): fetched for place, fetched in records.items()}
        for tp, fetched in by_tp.items():
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            if self._is_changelog_tp(tp):  # first: what follows may end early, and recovery would wait for these for ever
                await self._recover(tp, fetched)
        for tp, fetched in by_tp.items():
            if not self._is_changelog_tp(tp) and not await self._deliver_partition(tp, fetched, generation):
                return

    async def _give_back(self, records: Mapping[Any, list[ConsumerRecord]]) -> None:
        """Fetched and not delivered, because a rebalance came between. Streams are sought again anyway; recovery may have sought the
        changelog before these were fetched, and would then never see them."""
        dropped = {TP(place.topic, place.partition): fetched[0].offset for place, fetched in records.items() if fetched}
        changelog = {tp: offset for tp, offset in dropped.items() if self._is_changelog_tp(tp) and tp in self.assignment()}
        if changelog:
            try:
                await self._thread.seek_wait(changelog)
            except (TimeoutError, AiokafkaError) as error:
                log.warning("give_back.failed", app=self.app.conf.id, error=repr(error))

    async def _recover(self, tp: TP, fetched: list[ConsumerRecord]) -> None:
        """Changelog records: all but the last are applied at once; the last goes Faust's way, which keeps its books and its end signal."""
        table: MarkerTable = self.app.tables._changelogs[tp.topic]
        table.apply_records(tp, fetched[:-1])
        await self.callback(self._to_message(tp, fetched[-1]))
        await asyncio.sleep(0)

    async def _deliver_partition(self, tp: TP, fetched: list[ConsumerRecord], generation: int) -> bool:
        """Deliver in batches along the chain of offsets. False when the rest of the fetch must not be delivered."""
        size = self.processor.batch_size_max
        fresh = [record for record in fetched if record.offset >= self._expected.get(tp, record.offset + 1)]
        for start in range(0, len(fresh), size):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return False
            batch = Batch(fresh[start : start + size])
            batch.epoch = self._epoch[tp]
            expected, last = self._expected.get(tp), batch[-1].offset
            if expected is None or batch[0].offset != expected or last - expected + 1 != len(batch):
                await self._hole(tp, expected, batch)
                return False
            self._holes.pop(tp, None)
            self._expected[tp] = last + 1
            self._delivered[tp].append(last)
            self._read_offset[tp] = last
            message: Any = self._to_message(tp, batch[-1])
            message.value = batch
            await self.callback(message)
            await asyncio.sleep(0)
            await self.outputs.ebb()
        return True

    async def _hole(self, tp: TP, expected: int | None, batch: Batch) -> None:
        """A stale batch from before a seek is cured by seeking again; a hole that stays would lose records in silence."""
        self._holes[tp] += 1
        log.warning("offset.unexpected", topic=tp.topic, partition=tp.partition, expected=expected, found=batch[0].offset)
        if self._holes[tp] > _HOLES_MAX:
            die(f"{tp.topic}[{tp.partition}] has a hole: offset {expected} is not there. Retention or a lost log segment removed it")
        await self.seek_back()


class Transport(driver.Transport):
    Consumer = Consumer
    Producer = Producer

    processor: ProcessorSettings
    outputs: Outputs
    #: Called before anything irrevocable: ends the process if it stood still too long.
    guard: Callable[[], None]
    #: Where a partition starts when its position is kept elsewhere (Postgres); by default the group's committed offset.
    start_offsets: StartOffsets | None = None


def install(app: Any, processor: ProcessorSettings, outputs: Outputs, guard: Callable[[], None]) -> None:
    """Give `app` this transport. Before anything asks for `app.topics`, which would make the stock one."""
    transport = Transport(app.conf.broker_consumer, app)
    transport.processor, transport.outputs, transport.guard = processor, outputs, guard
    app.transport = app.producer_transport = transport
