"""Putting the records of a backup back: each partition in order, with its old times, at the offsets it had.

Where retention has taken the first records, empty ones stand in for them until all are there, and are then deleted: dropped dead letters,
consumer groups and delivery's checkpoint name offsets of such topics. A compacted topic closes its gaps: nobody names an offset of one.
What is in the log already, after a restore that was stopped, is left: it is the beginning of the same records.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from projections.log_reader import Place
from runtime.kafka import LIBRDKAFKA_LOGGER, producer_config
from runtime.settings import KafkaSettings
from schemas.records import Record
from triggers.backup import files
from triggers.backup.manifest import Manifest

_STALL_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.5
#: LOG_ERR of syslog(3): what librdkafka waits for by itself is no line of a command's.
_LOG_ERRORS: Final = 3
#: librdkafka takes 0 for now; no record of ours is of 1970.
_FIRST_MS: Final = 1


class RestoreError(RuntimeError):
    """The restore cannot go on; what was begun is marked as not done. The text says what to do."""


def records_of(directory: Path, manifest: Manifest, place: Place, fillers: int) -> Iterator[Record]:
    """All of one partition, behind as many empty ones. Raises `Damaged`."""
    yield from (Record(offset, _FIRST_MS, None, None, ()) for offset in range(fillers))
    for segment in manifest.segments_of(place):
        yield from files.records(directory, segment)


class Putter:
    """Produces to one cluster. `put` waits until everything is confirmed."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = Producer(
            {
                **producer_config(kafka, client_id="restore", linger_ms=20, delivery_timeout_s=0, gapless=True),
                "queue.buffering.max.kbytes": 65_536,
                "log_level": _LOG_ERRORS,
            },
            logger=LIBRDKAFKA_LOGGER,
        )
        self._error: str | None = None
        self._reported = 0

    def put(self, place: Place, records: Iterator[Record], have: int) -> int:
        """Records from number `have` on, which is where the partition ends; returns how many. Raises `RestoreError`."""
        count = have
        for number, record in enumerate(records):
            if number < have:
                continue
            timestamp_ms = max(record.timestamp_ms, _FIRST_MS)
            report = partial(self._report, number, timestamp_ms)
            self._wait(
                partial(
                    self._producer.produce, place[0], record.value, record.key, place[1],
                    on_delivery=report, timestamp=timestamp_ms, headers=list(record.headers) or None,
                )
            )  # fmt: skip
            count = number + 1
        waiting, since_s = len(self._producer), time.monotonic()
        while left := self._producer.flush(_POLL_S):
            self._check()
            if left < waiting:
                waiting, since_s = left, time.monotonic()
            elif time.monotonic() - since_s > _STALL_TIMEOUT_S:
                raise RestoreError(f"no record was taken by the broker for {_STALL_TIMEOUT_S:g} s: the same command goes on from there")
        self._check()
        return count - have

    def _wait(self, produce: partial[None]) -> None:
        deadline_s = time.monotonic() + _STALL_TIMEOUT_S
        while True:
            try:
                produce()
            except BufferError:
                before = self._reported
                self._producer.poll(_POLL_S)
                if self._reported > before:
                    deadline_s = time.monotonic() + _STALL_TIMEOUT_S
                elif time.monotonic() > deadline_s:
                    raise RestoreError(f"no record was taken by the broker for {_STALL_TIMEOUT_S:g} s: the same command goes on") from None
            else:
                self._producer.poll(0)
                self._check()
                return

    def _report(self, number: int, timestamp_ms: int, error: KafkaError | None, message: Message) -> None:
        self._reported += 1
        where = f"{message.topic()}[{message.partition()}]"
        if error is not None:
            self._error = self._error or f"a record of {where} was refused: {error.str()}"
        elif message.offset() != number:
            self._error = self._error or (
                f"a record came to offset {message.offset()} of {where} and belongs to {number}: somebody else writes there. Stop every "
                "process, empty the servers and begin again"
            )
        elif message.timestamp()[1] != timestamp_ms:
            self._error = self._error or f"the broker gave a record of {where} another time: empty the servers and begin again"

    def _check(self) -> None:
        if self._error is not None:
            raise RestoreError(self._error)
