"""The dedup table: a Faust table whose reads and writes go to RocksDB in batches and whose changelog leaves through our outputs.

Faust keeps what it is good at: which partitions are ours, opening and closing their folders, recovery's bookkeeping. Going through
`Table.__getitem__` costs 65 µs per record more than the raw handle (measured), so `session` hands out the handle for one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import faust
import msgspec
from faust.types import TP
from rocksdict import WriteBatch

from processors.dedup import Marker, decode_marker, encode_marker, newer
from processors.outputs import Outputs
from runtime.lifecycle import die
from runtime.metrics import RECOVERED
from schemas.topics import DEDUP_CHANGELOG, DEDUP_TABLE

#: RocksDB per partition; stock Faust allows three memtables of 64 MB and 2 GiB of cache for each.
_OPTIONS: Final[dict[str, Any]] = {
    "driver": "rocksdict",
    "write_buffer_size": 8 << 20,
    "max_write_buffer_number": 2,
    "block_cache_size": 32 << 20,
    "max_open_files": 256,
    "bloom_filter_size": 10,
    # Seconds, counted by RocksDB from the write. A marker is needed until its append time + 24 h, and a worker never works on records
    # older than 7 days (it rebuilds then), so one written now is not needed after 8 days.
    "ttl": 8 * 86_400,
}


class Session:
    """Reads and writes of one batch of one partition. Reads see the batch's own writes; `write` puts all of them at once.

    The RocksDB handle lives no longer than this object: one kept across an `await` holds the folder's lock past a revoke.
    """

    def __init__(self, table: MarkerTable, partition: int) -> None:
        self._db = table.data._db_for_partition(partition)
        self._outputs = table.outputs
        self._partition = partition
        self._pending: dict[bytes, Marker] = {}

    def get(self, key: bytes) -> Marker | None:
        """The marker `key` holds. Raises `msgspec.DecodeError` for bytes that are none."""
        if (marker := self._pending.get(key)) is not None:
            return marker
        value = self._db.get(key)
        return None if value is None else decode_marker(value)

    def put(self, key: bytes, marker: Marker) -> None:
        """Write to the table (with `write`) and to the changelog (now)."""
        self._pending[key] = marker
        self._outputs.produce(
            DEDUP_CHANGELOG, encode_marker(marker), key, self._partition, timestamp_ms=marker.appended_at_ms, changelog=True
        )

    def write(self) -> None:
        if self._pending:
            batch = WriteBatch(raw_mode=True)
            for key, marker in self._pending.items():
                batch.put(key, encode_marker(marker))
            self._db.write(batch)
            self._pending.clear()


class MarkerTable(faust.Table[bytes, bytes]):
    """`seen`: table key → marker. Made by `declare`."""

    app: Any
    data: Any
    outputs: Outputs

    def session(self, partition: int) -> Session:
        return Session(self, partition)

    def apply_records(self, tp: TP, records: Sequence[Any]) -> None:
        """Recovery: apply changelog records of one partition in one write. Called with what lies between persisted offset and end."""
        recovery = self.app.tables.recovery
        seen = recovery.active_offsets.get(tp)
        fresh = [record for record in records if seen is None or record.offset > seen]
        if fresh:
            recovery.flush_buffers()
            self._apply(tp, ((record.key, record.value, record.offset) for record in fresh))
            recovery.active_offsets[tp] = fresh[-1].offset

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Faust's own way into the store (the last record of a fetch, standbys): the same rule."""
        by_partition: dict[TP, list[tuple[bytes, bytes | None, int]]] = {}
        for event in batch:
            message = event.message
            by_partition.setdefault(message.tp, []).append((message.key, message.value, message.offset))
        for tp, records in by_partition.items():
            self._apply(tp, records)

    def _apply(self, tp: TP, records: Iterable[tuple[bytes, bytes | None, int]]) -> None:
        db = self.data._db_for_partition(tp.partition)
        batch = WriteBatch(raw_mode=True)
        latest: dict[bytes, Marker] = {}
        count, last = 0, -1
        for key, value, offset in records:
            count, last = count + 1, offset
            if value is None:
                continue  # nothing of ours writes tombstones; retention and the window end markers
            try:
                marker = decode_marker(value)
                held = latest.get(key)
                if held is None and (stored := db.get(key)) is not None:
                    held = decode_marker(stored)
            except msgspec.DecodeError as error:
                die(f"{tp.topic}[{tp.partition}] offset {offset} is not a marker ({error}): rebuild the dedup table from the log")
            latest[key] = newer(held, marker)
        for key, marker in latest.items():
            batch.put(key, encode_marker(marker))
        db.write(batch)
        if last >= 0:
            self.data.set_persisted_offset(tp, last)
        RECOVERED.inc(count)


def declare(app: Any, partitions: int, outputs: Outputs) -> MarkerTable:
    """The dedup table of `app`, which must have been made with `Table=MarkerTable`. Its changelog topic is declared in `schemas.topics`."""
    table: MarkerTable = app.Table(
        DEDUP_TABLE, key_type=bytes, value_type=bytes, partitions=partitions, options=dict(_OPTIONS), recovery_buffer_size=1_000
    )
    table.outputs = outputs
    if table.changelog_topic_name != DEDUP_CHANGELOG:
        raise RuntimeError(f"the changelog is called {table.changelog_topic_name}, declared is {DEDUP_CHANGELOG}")
    return table
