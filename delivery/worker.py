"""The delivery worker: what it owns, and how a rebalance takes it over and gives it back.

The order of effects for one (event, endpoint): plan confirmed → POST → attempt journalled and confirmed → retry or dead letter confirmed →
source done → watermark committed. A new owner reads from the log how far the last one came, so that no step is done twice but the POST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from confluent_kafka import TopicPartition

from access.secrets import Keyring
from delivery import attempt
from delivery.consumer import ConsumerThread
from delivery.context import Context
from delivery.endpoints import Endpoints
from delivery.facts import Source
from delivery.journal import FACTS_ALARM, Checkpoint, encode_checkpoint
from delivery.lanes import Lane
from delivery.missed import Missed
from delivery.opening import Opening
from delivery.partition import PartitionWorker
from delivery.replay_state import ReplayState
from delivery.tails import TailReader, Tails
from delivery.watermark import Watermark
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.kafka import Bus
from runtime.lifecycle import StallGuard, beside, die
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.telemetry import log
from schemas.records import Record
from schemas.topics import DELIVERIES_REQUESTS, EVENTS_ACCEPTED, retry_topic

#: Everything is committed again this often: a broker forgets offsets of topics that no group subscribes to (KIP-211), days after the last
#: commit, and the group subscribes to one topic only.
_COMMIT_AGAIN_S: Final = 3_600.0


class DeliveryWorker:
    """One member of the delivery group. `run` until told to stop."""

    def __init__(self, settings: Settings, clock: Clock, pool: Pool, keyring: Keyring, guard: StallGuard) -> None:
        self._settings = settings
        self._clock = clock
        self._guard = guard
        self._name = f"delivery-{settings.delivery.slot}"
        self._delays = {retry_topic(delay): delay for delay in settings.delivery.delays_s}
        self._sources = [EVENTS_ACCEPTED, DELIVERIES_REQUESTS, *self._delays]
        self._endpoints = Endpoints(pool, keyring, clock, self._name, settings.delivery.schedule_s)
        self._missed = Missed(pool)
        self._replays = ReplayState(pool, clock)
        self._opening = Opening(pool, keyring, clock)
        self._bus = Bus(settings.kafka, client_id=self._name, linger_ms=1, gapless=True)
        self._owned: dict[int, PartitionWorker] = {}
        self._tails = TailReader(settings.kafka, list(self._delays), int(settings.delivery.journal_memory_s * 1000))

    async def run(self, stop: asyncio.Event) -> None:
        await self._bus.start()
        async with attempt.Sender(self._settings, may_write=self._guard.check) as sender:
            self._context = Context(
                self._settings, self._clock, self._bus, self._endpoints, sender, self._guard, self._delays, self._name, self._missed,
                self._replays, self._opening,
            )  # fmt: skip
            self._consumer = ConsumerThread(self._settings, self._sources, self, self._guard)
            self._consumer.start()
            log.info("delivery.started", worker=self._name)
            beating = beside(self._guard.keep_beating(), "the guard against standing still")
            committing = beside(self._commit_regularly(), "committing")
            try:
                await stop.wait()
            finally:
                committing.cancel()
                await self._consumer.stop()
                await self._context.pages.close()
                await self._context.replay_pages.close()
                await self._bus.stop()
                beating.cancel()
        log.info("delivery.stopped", worker=self._name)

    # -- called by the consumer thread

    def read_tails(self, partitions: Sequence[int], committed: Sequence[TopicPartition], told_to_stop: Callable[[], bool]) -> Tails | None:
        return self._tails.read(partitions, committed, self._clock.now_ms(), told_to_stop)

    def owns_nothing(self) -> bool:
        return not self._owned

    async def assigned(self, committed: Sequence[TopicPartition], tails: Tails) -> None:
        """Take partitions over: nothing of them was touched since the tails were read, because their last owner has let go."""
        if missing := [f"{tp.topic}[{tp.partition}]" for tp in committed if tp.offset < 0]:
            die(
                f"the group has no offsets for {', '.join(missing)}. New topics get their first ones from `triggers topics`. If they were "
                "lost, decide where deliveries go on: `triggers lost-offsets --help`"
            )
        for partition, tail in tails.items():
            lanes = {tp.topic: self._lane(tp, tail.checkpoint) for tp in committed if tp.partition == partition}
            if lanes.keys() != set(self._sources):
                die(f"partition {partition} was assigned without some of its topics: every worker must run with the same delays")
            self._owned[partition] = PartitionWorker(self._context, partition, lanes, tail.journal, tail.ends, tail.fifo)
            self._owned[partition].start()
        log.info("partitions.assigned", partitions=sorted(tails))

    def _lane(self, tp: TopicPartition, checkpoint: Checkpoint) -> Lane:
        highest = checkpoint.h if tp.topic == EVENTS_ACCEPTED else -1
        topic, partition = tp.topic, tp.partition
        return Lane(
            topic,
            partition,
            Watermark(tp.offset, highest),
            self._settings.delivery.in_flight_per_partition_max,
            bytes_in_flight_max=self._settings.delivery.bytes_in_flight_per_partition_max,
            pause=lambda: self._consumer.pause(topic, partition),
            resume=lambda: self._consumer.resume(topic, partition),
        )

    async def revoked(self, partitions: Collection[int], *, lost: bool) -> Sequence[TopicPartition]:
        """Give them back: take nothing more, let what is under way end for a while, say how far each partition is done."""
        gone = {partition: self._owned.pop(partition) for partition in partitions if partition in self._owned}
        timeout_s = 0.0 if lost else self._settings.delivery.shutdown_timeout_s
        await asyncio.gather(*(worker.stop(timeout_s) for worker in gone.values()))
        log.info("partitions.revoked", partitions=sorted(gone), lost=lost)
        return [] if lost else [offset for worker in gone.values() for offset in self._offsets(worker)]

    def records(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        worker = self._owned.get(partition)
        if worker is not None:
            worker.lanes[topic].add(records)

    # -- committing

    async def _commit_regularly(self) -> None:
        committed: dict[tuple[str, int], int] = {}
        again_s = self._clock.monotonic_s() + _COMMIT_AGAIN_S
        while True:
            await asyncio.sleep(self._settings.delivery.commit_interval_s)
            if self._clock.monotonic_s() > again_s:
                committed.clear()
                again_s = self._clock.monotonic_s() + _COMMIT_AGAIN_S
            offsets: list[TopicPartition] = []
            for worker in self._owned.values():
                now = {(lane.topic, lane.partition): lane.watermark.next_offset for lane in worker.lanes.values()}
                if any(committed.get(place) != offset for place, offset in now.items()):
                    offsets += self._offsets(worker)
                    committed.update(now)
                self._forget(worker)
            if offsets:
                self._guard.check()
                reach("delivery.before_commit")
                self._consumer.commit(offsets)

    def _offsets(self, worker: PartitionWorker) -> list[TopicPartition]:
        """Every lane's watermark. That of accepted events carries the checkpoint, so it is committed along with any of them."""
        return [
            TopicPartition(
                lane.topic,
                lane.partition,
                lane.watermark.next_offset,
                metadata=encode_checkpoint(worker.journal.checkpoint(lane.watermark.highest)) if lane.topic == EVENTS_ACCEPTED else "",
            )
            for lane in worker.lanes.values()
        ]

    def _forget(self, worker: PartitionWorker) -> None:
        def is_committed(source: Source | None) -> bool:
            if source is None:
                return worker.caught_up()
            return worker.is_over(source)

        worker.journal.forget(self._clock.now_ms(), is_committed)
        if len(worker.journal) > FACTS_ALARM:
            log.warning("journal.large", partition=worker.partition, facts=len(worker.journal))
