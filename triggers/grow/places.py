"""Where the records of a topic go when partitions grow, and in which order. Pure.

Records keep the order they have within their old partition, so those that go from one old partition to one new one keep it, too: each such
pair has a map that only grows, by which bounds are mapped as exactly as places are.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

from schemas.keys import partition_of
from schemas.records import Record


class Place(NamedTuple):
    """In one topic."""

    partition: int
    offset: int


class Moved(NamedTuple):
    """A record, from where and to where."""

    old: Place
    new: Place
    record: Record


class _Run:
    """Old and new offsets of what goes from one partition to another, and its turn in the merge of all. 24 bytes a record."""

    def __init__(self) -> None:
        self.old = array("q")
        self.new = array("q")
        self.turn = array("q")


class Places:
    """Of one topic. `add` in the order of the merge."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, int], _Run] = {}
        self._count = 0

    def add(self, old: Place, new: Place) -> None:
        run = self._runs.setdefault((old.partition, new.partition), _Run())
        run.old.append(old.offset)
        run.new.append(new.offset)
        run.turn.append(self._count)
        self._count += 1

    def of(self, old: Place) -> Place | None:
        """Where a record is now; None for one that was not moved."""
        for (source, target), run in self._runs.items():
            if source == old.partition and (at := _index(run, old.offset)) is not None:
                return Place(target, run.new[at])
        return None

    def turn(self, old: Place) -> int | None:
        """Its place in the order of all."""
        for (source, _), run in self._runs.items():
            if source == old.partition and (at := _index(run, old.offset)) is not None:
                return run.turn[at]
        return None

    def at_or_after(self, old: Place, target: int) -> int | None:
        """Of what went from that partition to `target`: the first at or behind an old offset. None: there is none."""
        run = self._runs.get((old.partition, target))
        at = 0 if run is None else bisect_left(run.old, old.offset)
        return None if run is None or at == len(run.old) else run.new[at]

    def at_or_before(self, old: Place, target: int) -> int:
        """The last at or before an old offset; -1: there is none."""
        run = self._runs.get((old.partition, target))
        at = 0 if run is None else bisect_right(run.old, old.offset)
        return -1 if run is None or at == 0 else run.new[at - 1]


def _index(run: _Run, old: int) -> int | None:
    at = bisect_left(run.old, old)
    return at if at < len(run.old) and run.old[at] == old else None


def target_of(key: bytes | None, partition: int, partitions: int) -> int:
    """The partition of a record's key; one without a key stays in its own, which is there, as partitions only grow."""
    return partition if key is None else partition_of(key, partitions)


def by_time(partition: int, records: Iterable[Record]) -> Iterator[tuple[tuple[int, ...], int, Record]]:
    """By the highest time so far, which only grows: so the merge is a sort, whatever a clock did."""
    high = 0
    for record in records:
        high = max(high, record.timestamp_ms)
        yield (high, partition, record.offset), partition, record


def by_ingested(
    ingested: Places, origin_of: Callable[[Record], int | None]
) -> Callable[..., Iterator[tuple[tuple[int, ...], int, Record]]]:
    """For accepted records: as their ingested ones go, so that these offsets grow in every partition. Copies that a crash of dedup left,
    whose ingested offset is not above the highest before them, are left out. One that cannot be read stays behind the one before it."""

    def order(partition: int, records: Iterable[Record]) -> Iterator[tuple[tuple[int, ...], int, Record]]:
        high, turn = -1, -1
        for record in records:
            origin = origin_of(record)
            if origin is not None:
                if origin <= high:
                    continue
                high = origin
                turn = max(turn, found if (found := ingested.turn(Place(partition, origin))) is not None else turn)
            yield (turn, partition, record.offset), partition, record

    return order


def merged(
    logs: Mapping[int, Iterable[Record]],
    partitions: int,
    places: Places,
    order: Callable[[int, Iterable[Record]], Iterator[tuple[tuple[int, ...], int, Record]]] = by_time,
    ends: dict[int, int] | None = None,
    target: Callable[[Record, int], int] | None = None,
) -> Iterator[Moved]:
    """All records of a topic in their new order, noted in `places`. `ends` holds where each new partition ends, and may begin anywhere:
    what a group has done with goes first, then, by a second call, what it has not.
    `target` says where a record goes, unless its key does."""
    behind = {} if ends is None else ends
    for _, partition, record in heapq.merge(*(order(number, records) for number, records in sorted(logs.items())), key=itemgetter(0)):
        to = target_of(record.key, partition, partitions) if target is None else target(record, partition)
        move = Moved(Place(partition, record.offset), Place(to, behind.get(to, 0)), record)
        behind[to] = move.new.offset + 1
        places.add(move.old, move.new)
        yield move
