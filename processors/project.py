"""The projection agents: batches of a topic into folds handed in by the composition root, one transaction a batch.

Postgres holds the position: an assignment starts at its `next_offset`, a batch moves it in the transaction that writes the rows, and a
batch that does not start there is refused (`Fenced`). Kafka's committed offset follows for lag tools only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import psycopg
import psycopg_pool
from faust.types import TP

from processors.agents import as_record, carried, consume_ahead, reject
from processors.outputs import Outputs
from processors.transport import Batch, Consumer
from runtime.clock import Clock
from runtime.lifecycle import die
from runtime.metrics import FOLD_LAG_SECONDS, FOLD_SECONDS, FOLDED
from runtime.postgres import Pool
from runtime.telemetry import event_line, event_lines_on, log
from schemas.codec import HEADER_EVENT_ID
from schemas.records import Record

_RETRY_PAUSE_FIRST_S: Final = 0.1
_RETRY_PAUSE_MAX_S: Final = 5.0
#: Refused transactions in a row on one partition before something other than a rebalance must be the cause.
_FENCED_MAX: Final = 10


T = TypeVar("T")


class Fold(Protocol):
    """How one topic goes into Postgres.

    `decode` is pure; what it returns has `parked`, a sequence of `Parked`, and goes to `write` as it is: one transaction that writes the
    rows and moves the partition's next offset from the first number to the second.
    """

    @property
    def topic(self) -> str: ...

    @property
    def decode(self) -> Callable[[int, Sequence[Record]], Any]: ...

    @property
    def write(self) -> Callable[[Any, int, Any, int, int], Awaitable[None]]: ...


LoadOffsets = Callable[[Any, set[tuple[str, int]]], Awaitable[Mapping[tuple[str, int], int]]]


class Project:
    """All projection agents of one worker, sharing one lock: a seek never reads a position that a transaction is about to move."""

    def __init__(self, app: Any, outputs: Outputs, pool: Pool, load_offsets: LoadOffsets, fenced: type[Exception], clock: Clock) -> None:
        self._app = app
        self._outputs = outputs
        self._pool = pool
        self._load_offsets = load_offsets
        self._fenced = fenced
        self._clock = clock
        self._lock = asyncio.Lock()
        self._refused: dict[TP, int] = {}

    async def start_offsets(self, partitions: set[TP]) -> dict[TP, int]:
        """Postgres's next offsets: where every seek goes. Waits for Postgres as long as it takes."""

        async def load(connection: Any) -> Mapping[tuple[str, int], int]:
            return await self._load_offsets(connection, {(tp.topic, tp.partition) for tp in partitions})

        async with self._lock:
            found = await self._until_postgres_answers(load, lambda: True)
        return {} if found is None else {TP(topic, number): offset for (topic, number), offset in found.items()}

    def agent(self, fold: Fold) -> Callable[[Any], Awaitable[None]]:
        """The Faust agent of one fold. While one batch is written, the next is decoded."""

        def prepare(tp: TP, batch: Batch) -> tuple[list[Record], Any]:
            records = [as_record(fetched) for fetched in batch]
            return records, fold.decode(tp.partition, records)

        async def finish(tp: TP, prepared: tuple[list[Record], Any], current: Callable[[], bool]) -> bool:
            return await self._batch(fold, tp, *prepared, current)

        async def run(stream: Any) -> None:
            await consume_ahead(self._app, stream, prepare, finish)

        return run

    async def _batch(self, fold: Fold, tp: TP, records: list[Record], decoded: Any, current: Callable[[], bool]) -> bool:
        if decoded.parked:
            for record, error in decoded.parked:
                reject(self._outputs, tp, record, error)
            await self._outputs.flush()

        async def write(connection: Any) -> bool:
            await fold.write(connection, tp.partition, decoded, records[0].offset, records[-1].offset + 1)
            return True

        try:
            async with self._lock:
                with FOLD_SECONDS.labels(tp.topic).time():
                    if not current() or await self._until_postgres_answers(write, current) is None:
                        return False
        except self._fenced as error:
            await self._seek_again(tp, error)
            return False
        self._refused.pop(tp, None)
        FOLDED.labels(tp.topic).inc(len(records))
        FOLD_LAG_SECONDS.labels(tp.topic).set(max(0.0, (self._clock.now_ms() - records[-1].timestamp_ms) / 1000))
        if event_lines_on():
            _tell(tp, records, {record.offset for record, _ in decoded.parked})
        return True

    async def _seek_again(self, tp: TP, error: Exception) -> None:
        """Postgres is elsewhere: another owner's last transaction, or our own whose answer was lost. Start again where it is."""
        self._refused[tp] = self._refused.get(tp, 0) + 1
        log.warning("projection.fenced", topic=tp.topic, partition=tp.partition, error=str(error))
        if self._refused[tp] > _FENCED_MAX:
            die(f"{tp.topic}[{tp.partition}] was refused {_FENCED_MAX} times in a row: {error}")
        consumer: Consumer = self._app.consumer
        await consumer.seek_back()

    async def _until_postgres_answers(self, work: Callable[[Any], Awaitable[T]], current: Callable[[], bool]) -> T | None:
        """Do `work` on a connection, again after a pause while Postgres is away. None once the batch is no longer ours.

        A lost answer to a commit is resolved by the fence: the second try is refused and the seek finds the moved offset.
        """
        pause_s = _RETRY_PAUSE_FIRST_S
        while current():
            try:
                async with self._pool.connection() as connection:
                    return await work(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout) as error:
                log.warning("projection.waiting", server="PostgreSQL", error=str(error).splitlines()[:1], pause_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_PAUSE_MAX_S)
        return None


def _tell(tp: TP, records: Sequence[Record], parked: Container[int]) -> None:
    """A line for each record about one event, once its rows are there. An ack tells of many events and has its line at the API."""
    for record in records:
        event_id = dict(record.headers).get(HEADER_EVENT_ID)
        if event_id is None or record.offset in parked:
            continue
        event_line(
            "event.folded",
            event_id=event_id.decode(errors="replace"),
            organization=(record.key or b"").decode(errors="replace"),
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            **carried(record.headers),
        )
