"""The Faust agents: they carry records to decisions and effects out again, and decide nothing.

The bodies never raise: an exception that left one would acknowledge the event and lose it. What cannot be handled ends the process, and
the restart repeats from the last commit. Events are acknowledged by hand (`noack`), because a stream closed in the middle of a batch
would acknowledge it too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from faust.types import TP

from processors.dedup import LOST, Decision, Marker, Touched, check_place, decide, duplicate_of, marker_of
from processors.outputs import Outputs
from processors.tables import MarkerTable, Session
from processors.transport import Batch, Consumer
from runtime.crashpoints import reach
from runtime.lifecycle import die
from runtime.metrics import DEDUP_DECISIONS, REJECTED
from runtime.telemetry import event_line, event_lines_on
from schemas import codec
from schemas.codec import (
    HEADER_REQUEST_ID,
    HEADER_TRACEPARENT,
    CodecError,
    rejected_headers,
)
from schemas.events import Ingested
from schemas.ids import EventId
from schemas.keys import table_key
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED, EVENTS_DUPLICATES, EVENTS_REJECTED

T = TypeVar("T")
BatchHandler = Callable[[TP, Batch, Callable[[], bool]], Awaitable[bool]]


async def consume(app: Any, stream: Any, handle: BatchHandler) -> None:
    """Body of every agent: hand each batch to `handle(partition, records, current)` and acknowledge it when it says True.

    `current()` turns False when a rebalance or a seek has made the batch someone else's or will deliver it again: it must then be left.
    """
    async for event in stream.noack().events():
        await _take(app, stream, event, partial(handle, event.message.tp, event.value))


async def consume_ahead(
    app: Any, stream: Any, prepare: Callable[[TP, Batch], T], finish: Callable[[TP, T, Callable[[], bool]], Awaitable[bool]]
) -> None:
    """The same in two steps: one batch after the other goes to `finish`, and while it waits there the next one is prepared.

    `prepare` is pure: what it made of a batch that is someone else's by then is left.
    """
    finishing: asyncio.Task[None] | None = None
    try:
        async for event in stream.noack().events():
            with _fatal(app, event.message):
                prepared = prepare(event.message.tp, event.value)
            if finishing is not None:
                await finishing
            finishing = asyncio.create_task(_take(app, stream, event, partial(finish, event.message.tp, prepared)))
        if finishing is not None:
            await finishing
    finally:
        if finishing is not None and not finishing.done():
            finishing.cancel()
            await asyncio.wait((finishing,))


async def _take(app: Any, stream: Any, event: Any, work: Callable[[Callable[[], bool]], Awaitable[bool]]) -> None:
    """Do the work that one batch causes, and acknowledge it."""
    message = event.message
    current = partial(app.consumer.is_current, message.tp, event.value)
    with _fatal(app, message):
        done = current() and await work(current)
    if done and current():
        await stream.ack(event)


@contextmanager
def _fatal(app: Any, message: Any) -> Iterator[None]:
    """Any failure in here ends the process, whatever it is."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001
        die(f"{app.conf.id}: {message.tp.topic}[{message.tp.partition}] up to offset {message.offset}: {error!r}")


def as_record(fetched: ConsumerRecord) -> Record:
    return Record(fetched.offset, fetched.timestamp, fetched.key, fetched.value, fetched.headers)


def reject(outputs: Outputs, tp: TP, record: Record, error: CodecError) -> None:
    """Park a record that cannot be read in `events.rejected`: value and key as found, origin and reason in headers."""
    headers = [*record.headers, *rejected_headers(tp.topic, tp.partition, record.offset, error)]
    outputs.produce(EVENTS_REJECTED, record.value, record.key, tp.partition, headers=headers, timestamp_ms=max(record.timestamp_ms, 0))
    REJECTED.labels(tp.topic, error.reason).inc()
    event_line(
        "record.rejected", topic=tp.topic, partition=tp.partition, offset=record.offset, reason=error.reason, detail=error.detail[:200]
    )


class Dedup:
    """The dedup agent of one worker."""

    def __init__(self, app: Any, table: MarkerTable, outputs: Outputs, *, partitions: int, window_ms: int) -> None:
        self._app = app
        self._table = table
        self._outputs = outputs
        self._partitions = partitions
        self._window_ms = window_ms
        self._touched: defaultdict[int, Touched] = defaultdict(Touched)

    async def run(self, stream: Any) -> None:
        await consume(self._app, stream, self._batch)

    async def _batch(self, tp: TP, batch: Batch, current: Callable[[], bool]) -> bool:
        """Everything between two awaits happens at once as far as a rebalance can tell, so a batch is whole or abandoned at a commit."""
        consumer: Consumer = self._app.consumer
        touched = self._touched[tp.partition]
        session = self._table.session(tp.partition)
        for record in batch:
            event = self._read(tp, record)
            if event is None:
                continue
            if event.dedup_key is None:
                self._forward(tp, record)
                self._count(tp, record, event, "keyless", None)
                continue
            key = table_key(event.organization, event.mode, event.dedup_key)
            mine = marker_of(event, tp.partition, record.offset, record.timestamp)
            held = session.get(key)
            decision = decide(held, mine, self._window_ms)
            if decision == "first" and held is not None and touched.needs_commit(key, consumer.committed_past(tp)):
                session.write()
                del session  # its RocksDB handle must not outlive a revoke that happens while we wait
                if not (await consumer.commit_before(tp, record.offset) and current()):
                    return False
                session = self._table.session(tp.partition)
            touched.note(key, record.offset, consumer.committed_past(tp))
            self._effect(session, tp, record, event, key, mine, held, decision)
        session.write()
        reach("dedup.after_write")
        return True

    def _read(self, tp: TP, record: ConsumerRecord) -> Ingested | None:
        try:
            event = codec.ingested.decode(record.value)
            check_place(event, record.key, tp.partition, self._partitions)
        except CodecError as error:
            DEDUP_DECISIONS.labels("rejected").inc()
            reject(self._outputs, tp, as_record(record), error)
            return None
        return event

    def _effect(
        self,
        session: Session,
        tp: TP,
        record: ConsumerRecord,
        event: Ingested,
        key: bytes,
        mine: Marker,
        held: Marker | None,
        decision: Decision,
    ) -> None:
        original = None
        if decision in ("first", "redelivered"):
            session.put(key, mine)
            reach("dedup.after_put")
            self._forward(tp, record)
        elif held is not None and decision in LOST:
            original = held.event_id
            self._produce(EVENTS_DUPLICATES, tp, record, codec.encode(duplicate_of(event, mine, held, decision)))
        self._count(tp, record, event, decision, original)

    def _forward(self, tp: TP, record: ConsumerRecord) -> None:
        self._produce(EVENTS_ACCEPTED, tp, record, codec.encode_accepted(record.value, record.offset, record.timestamp))
        reach("dedup.after_send")

    def _produce(self, topic: str, tp: TP, record: ConsumerRecord, value: bytes) -> None:
        """Key, headers, partition and time are the ingested record's: an output is a pure function of it."""
        self._outputs.produce(topic, value, record.key, tp.partition, headers=record.headers, timestamp_ms=record.timestamp)

    @staticmethod
    def _count(tp: TP, record: ConsumerRecord, event: Ingested, decision: str, original: EventId | None) -> None:
        DEDUP_DECISIONS.labels(decision).inc()
        if event_lines_on():
            event_line(
                "event.deduplicated",
                decision=decision,
                event_id=event.id,
                organization=event.organization,
                mode=event.mode,
                type=event.type,
                original_id=original,
                partition=tp.partition,
                ingested_offset=record.offset,
                appended_at_ms=record.timestamp,
                **carried(record.headers),
            )


def carried(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """What a line about a record says of the request that caused it: `request_id` and `traceparent`, empty where there was none."""
    found = dict(headers)
    return {
        field: (found.get(name) or b"").decode(errors="replace")
        for field, name in (("request_id", HEADER_REQUEST_ID), ("traceparent", HEADER_TRACEPARENT))
    }
