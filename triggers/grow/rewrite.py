"""A backup of a system with few partitions becomes one of the same system with more, in the next topic generation. Needs the files alone.

Topics go in the order in which their records name each other. What is written is a backup as any other: `check` knows whether it is whole,
and `restore` puts it into empty servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Final

import msgspec

from delivery.fifo_places import Found
from delivery.journal import encode_checkpoint, read_checkpoint
from processors.dedup import Marker, decode_marker, encode_marker, newer
from projections.rebuild import Progress
from runtime.clock import Clock
from schemas import codec
from schemas.codec import HEADER_REJECTED_OFFSET, HEADER_REJECTED_PARTITION, HEADER_REJECTED_TOPIC, CodecError
from schemas.ids import EndpointId
from schemas.lifecycle import Dropped, LifecycleRecord
from schemas.records import Record
from schemas.topics import (
    DEDUP_APP,
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_FIFO,
    DELIVERIES_REQUESTS,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    LIFECYCLE,
)
from triggers.backup import files, manifest
from triggers.backup.check import read_manifest
from triggers.backup.manifest import MANIFEST, Committed, Covered, Manifest, Segment
from triggers.grow import control, values
from triggers.grow.places import Moved, Place, Places, by_ingested, by_time, merged, target_of
from triggers.grow.segments import Out
from triggers.grow.values import Move

SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
_TOLD_EVERY: Final = 10_000
#: These in this order, then every other topic, then those whose records name places of any.
_FIRST: Final = (EVENTS_INGESTED, EVENTS_ACCEPTED)
_LAST: Final = (EVENTS_REJECTED, LIFECYCLE)
#: What has to be read to its end: what comes of it must be on the other topics, not to come in another order.
_DRAINED: Final = ((DEDUP_APP, EVENTS_INGESTED), (DELIVERY_GROUP, EVENTS_ACCEPTED))


class NotReady(RuntimeError):
    """The log is not at rest. The text says what to do."""


def rewrite(
    before: Path,
    after: Path,
    partitions: int,
    clock: Clock,
    report: Callable[[Progress], None],
    *,
    segment_bytes_max: int = SEGMENT_BYTES_MAX,
) -> str:
    """Write the backup of `before` for `partitions` into the empty folder `after`; returns its digest.

    Raises `NotReady`, `ValueError` unless there are more partitions, `triggers.grow.values.NotMoved`,
    `triggers.backup.manifest.Damaged`, `OSError`.
    """
    _, made = read_manifest(before)
    if partitions <= made.partitions:
        raise ValueError(f"there are {made.partitions} partitions: they only become more")
    drained({(one.topic, one.partition): one.end for one in made.covered}, made.committed)
    return _Rewrite(before, after, made, partitions, segment_bytes_max, clock, report).run()


def drained(ends: Mapping[tuple[str, int], int], committed: Iterable[Committed]) -> None:
    """Raises `NotReady` unless groups have read to the `ends` what must be read to its end."""
    stands = {(one.group, one.topic, one.partition): one.offset for one in committed}
    for group, topic in _DRAINED:
        left = sum(end - stands.get((group, topic, number), 0) for (name, number), end in ends.items() if name == topic)
        if left:
            raise NotReady(f"{group} has {left} records of {topic} to go: start its workers, wait until they are done, and stop them")


class _Rewrite:
    def __init__(
        self,
        before: Path,
        after: Path,
        made: Manifest,
        partitions: int,
        segment_bytes_max: int,
        clock: Clock,
        report: Callable[[Progress], None],
    ) -> None:
        self._clock = clock
        self._report = report
        self._began_s = clock.monotonic_s()
        self._written = 0
        self._before = before
        self._after = after
        self._made = made
        self._partitions = partitions
        self._segment_bytes_max = segment_bytes_max
        self._places: dict[str, Places] = {}
        self._ends: dict[str, dict[int, int]] = {}
        self._move = Move(made.generation, made.partitions, partitions, self._places, self._ends)
        self._segments: list[Segment] = []
        self._commits: dict[tuple[str, str], dict[int, int]] = {}

    def run(self) -> str:
        growing = [topic.name for topic in self._made.topics if not topic.compacted]
        for name in (*_FIRST, *(one for one in growing if one not in (*_FIRST, *_LAST))):
            self._topic(name)
        # A rejected record may be one of `lifecycle`, and a decision there may be about a rejected record.
        lifecycle = Out(self._after, LIFECYCLE, self._segment_bytes_max)
        self._ends[LIFECYCLE] = lifecycle.ends
        self._keyed(lifecycle)
        self._topic(EVENTS_REJECTED)
        self._decisions(lifecycle)
        self._segments += lifecycle.close()
        self._fifo()
        self._changelog()
        tables = control.rewrite(self._move, self._before, self._after, self._made)
        digest, content = manifest.encode(
            msgspec.structs.replace(
                self._made, run=1, generation=self._made.generation + 1, partitions=self._partitions, tables=tables,
                topics=[msgspec.structs.replace(topic, topic_id="") for topic in self._made.topics],
                covered=[
                    Covered(topic=topic.name, partition=number, begin=0, end=self._ends[topic.name].get(number, 0))
                    for topic in self._made.topics
                    for number in range(self._partitions)
                ],
                segments=self._segments, committed=self._committed(),
            )
        )  # fmt: skip
        files.write_whole(self._after / MANIFEST, content)
        total = sum(one.records for one in self._made.segments)
        self._report(Progress("rewrite", total, total, self._clock.monotonic_s() - self._began_s))
        return digest

    # -- topics that only grow

    def _topic(self, name: str) -> None:
        places, ends = self._places.setdefault(name, Places()), self._ends.setdefault(name, {})
        order = by_ingested(self._places[EVENTS_INGESTED], _origin_of) if name == EVENTS_ACCEPTED else by_time
        out = Out(self._after, name, self._segment_bytes_max)
        stands = self._stands(DELIVERY_GROUP, name)
        below = {number: takewhile(lambda one, at=at: one.offset < at, self._records(name, number)) for number, at in stands.items()}  # type: ignore[misc]  # a bound default is not inferred
        above = {number: dropwhile(lambda one, at=at: one.offset < at, self._records(name, number)) for number, at in stands.items()}  # type: ignore[misc]
        for part in (below, above):
            for moved in merged(part, self._partitions, places, order, ends, self._target if name == EVENTS_REJECTED else None):
                out.put(moved.new.partition, self._changed(name, moved))
                self._tell()
            if part is below:
                self._commits[DELIVERY_GROUP, name] = dict(ends)
        self._segments += out.close()

    def _tell(self) -> None:
        self._written += 1
        if self._written % _TOLD_EVERY == 0:
            total = sum(one.records for one in self._made.segments)
            self._report(Progress("rewrite", self._written, total, self._clock.monotonic_s() - self._began_s))

    def _stands(self, group: str, topic: str) -> dict[int, int]:
        found = {one.partition: one.offset for one in self._made.committed if (one.group, one.topic) == (group, topic)}
        return {number: found.get(number, 0) for number in range(self._made.partitions)}

    def _records(self, topic: str, partition: int) -> Iterator[Record]:
        for segment in self._made.segments_of((topic, partition)):
            yield from files.records(self._before, segment)

    def _changed(self, name: str, moved: Moved) -> Record:
        move, record = self._move, moved.record
        change: dict[str, Callable[[], bytes | None]] = {
            EVENTS_ACCEPTED: lambda: values.accepted(move, record.value, moved.old),
            EVENTS_DUPLICATES: lambda: values.duplicate(move, record.value, moved.old),
            DELIVERIES_ATTEMPTS: lambda: values.journal(move, record.value),
            DELIVERIES_REQUESTS: lambda: values.request(move, record.value),
        }
        if name == EVENTS_REJECTED:
            return record._replace(headers=values.rejected(move, record.headers))
        return record._replace(value=change[name]()) if name in change else record

    def _target(self, record: Record, partition: int) -> int:
        """A rejected record stands in the partition of the one it was, whatever its key says."""
        found = {name: value or b"" for name, value in record.headers}
        old, offset = found.get(HEADER_REJECTED_PARTITION, b""), found.get(HEADER_REJECTED_OFFSET, b"")
        places = self._places.get(found.get(HEADER_REJECTED_TOPIC, b"").decode(errors="replace"))
        new = places.of(Place(int(old), int(offset))) if places is not None and old.isdigit() and offset.isdigit() else None
        return partition if new is None else new.partition

    # -- the others

    def _keyed(self, out: Out) -> None:
        """Marks of retention and erasures are of an organization and name no place: byte for byte, where their key goes. So does what
        cannot be read."""
        places = self._places[LIFECYCLE] = Places()
        for number, record, entry in self._entries():
            if not isinstance(entry, Dropped):
                to = target_of(record.key, number, self._partitions)
                places.add(Place(number, record.offset), Place(to, out.ends.get(to, 0)))
                out.put(to, record)

    def _decisions(self, out: Out) -> None:
        """A decision stands in the partition of its record. One about a record that is gone stays as it is: what it says of a delivery is
        looked for where the key goes, and without that it means nothing."""
        for number, record, entry in self._entries():
            if isinstance(entry, Dropped):
                found = values.dropped(self._move, record.value, entry)
                to = target_of(record.key, number, self._partitions)
                out.put(*((to, record) if found is None else (found[0], record._replace(value=found[1]))))

    def _entries(self) -> Iterator[tuple[int, Record, LifecycleRecord | None]]:
        """With the partition of each. None: it cannot be read."""
        for number in range(self._made.partitions):
            for record in self._records(LIFECYCLE, number):
                try:
                    yield number, record, codec.lifecycle.decode(record.value)
                except CodecError:
                    yield number, record, None

    def _fifo(self) -> None:
        """One position of each endpoint: the one that a new owner would find."""
        out = Out(self._after, DELIVERIES_FIFO, self._segment_bytes_max)
        for number in range(self._made.partitions):
            found, last = Found(), dict[EndpointId, Record]()
            for record in self._records(DELIVERIES_FIFO, number):
                try:
                    endpoint = EndpointId((record.key or b"").decode())
                    found.add_position(endpoint, None if record.value is None else codec.fifo_position.decode(record.value))
                except (CodecError, UnicodeDecodeError):
                    continue  # no fact of ours
                last[endpoint] = record
            for position, _ in found.starts():
                moved = values.fifo(self._move, position)
                out.put(self._move.sides(position.organization)[1], last[position.endpoint_id]._replace(value=codec.encode(moved)))
        self._segments += out.close()
        self._ends[DELIVERIES_FIFO] = out.ends

    def _changelog(self) -> None:
        """One marker of each key: the one that recovery would keep."""
        out = Out(self._after, DEDUP_CHANGELOG, self._segment_bytes_max)
        for number in range(self._made.partitions):
            held: dict[bytes, tuple[Marker, Record]] = {}
            for record in self._records(DEDUP_CHANGELOG, number):
                if record.value is None or record.key is None:
                    continue
                try:
                    marker = decode_marker(record.value)
                except msgspec.DecodeError:
                    raise NotReady(f"{DEDUP_CHANGELOG}[{number}]@{record.offset} is no marker: see `triggers rebuild dedup`") from None
                known = held.get(record.key)
                if known is None or newer(known[0], marker) is marker:
                    held[record.key] = marker, record
            for key, (marker, record) in held.items():
                moved = values.marker(self._move, key, marker)
                if moved is not None:
                    out.put(moved.partition, record._replace(value=encode_marker(moved)))
        self._segments += out.close()
        self._ends[DEDUP_CHANGELOG] = out.ends

    # -- the groups

    def _committed(self) -> list[Committed]:
        """Where the project processor stands is said by Postgres, so its groups' offsets are the ends."""
        known = sorted({(one.group, one.topic) for one in self._made.committed})
        checkpoints = {
            one.partition: read_checkpoint(one.metadata)
            for one in self._made.committed
            if (one.group, one.topic) == (DELIVERY_GROUP, EVENTS_ACCEPTED)
        }
        found = []
        for group, topic in known:
            stands = self._commits[group, topic] if group == DELIVERY_GROUP else self._ends[topic]
            for number in range(self._partitions):
                metadata = ""
                if (group, topic) == (DELIVERY_GROUP, EVENTS_ACCEPTED):
                    metadata = encode_checkpoint(values.checkpoint(self._move, checkpoints, number))
                found.append(Committed(group=group, topic=topic, partition=number, offset=stands.get(number, 0), metadata=metadata))
        return found


def _origin_of(record: Record) -> int | None:
    try:
        return codec.accepted.decode(record.value).ingested.offset
    except CodecError:
        return None
