"""Checking a backup. Needs the files and nothing else; memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from projections.log_reader import Place
from projections.rebuild import Progress
from runtime.clock import SYSTEM
from triggers.backup import files, manifest
from triggers.backup.manifest import MANIFEST, Damaged, Manifest, Segment, Table


class Checked(NamedTuple):
    """`digest` names the backup. `pending_since_ms`: of topics that a group reads, the oldest record it had not done with."""

    digest: str
    manifest: Manifest
    pending_since_ms: dict[str, int]


def read_manifest(directory: Path) -> tuple[str, Manifest]:
    """Raises `Damaged`."""
    try:
        content = (directory / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{directory} holds no {MANIFEST}: it is no backup, or one that did not come to its end") from None
    return manifest.decode(content)


def check(directory: Path, report: Callable[[Progress], None]) -> Checked:
    """Every byte of every file, and that together they are what the manifest says. Raises `Damaged`, `OSError`."""
    digest, made = read_manifest(directory)
    _covered(made)
    groups: dict[Place, int] = {}
    for one in made.committed:
        place = (one.topic, one.partition)
        groups[place] = min(one.offset, groups.get(place, one.offset))
    compacted = {topic.name for topic in made.topics if topic.compacted}
    pending: dict[str, int] = {}
    total, done, began_s = sum(segment.records for segment in made.segments), 0, SYSTEM.monotonic_s()
    for table in made.tables:
        files.check_bytes(directory, table)
        _table(directory, table)
    for segment in made.segments:
        files.check_bytes(directory, segment)
        done_below = groups.get((segment.topic, segment.partition))
        since_ms = _segment(directory, segment, done_below, compacted=segment.topic in compacted)
        if since_ms is not None:
            pending[segment.topic] = min(since_ms, pending.get(segment.topic, since_ms))
        done += segment.records
        report(Progress("check", done, total, SYSTEM.monotonic_s() - began_s))
    return Checked(digest, made, pending)


def _covered(made: Manifest) -> None:
    """Segments lie one behind the other and cover what the manifest says of each partition; nothing is named twice."""
    names = [file.name for file in made.files()]
    ranges = made.ranges()
    wanted = {(topic.name, number) for topic in made.topics for number in range(made.partitions)}
    if len(set(names)) != len(names) or ranges.keys() != wanted or {(one.topic, one.partition) for one in made.segments} - wanted:
        raise Damaged(f"{MANIFEST} does not name each file and each partition once")
    for place, part in ranges.items():
        at = part.begin
        for segment in made.segments_of(place):
            if segment.first != at:
                raise Damaged(f"{place[0]}[{place[1]}]: {segment.name} begins at {segment.first}, the one before it ends at {at}")
            at = segment.next
        if at != part.end:
            raise Damaged(f"{place[0]}[{place[1]}] is covered up to {at}, and should be up to {part.end}")
    for one in made.committed:
        if (place := (one.topic, one.partition)) not in ranges or one.offset > ranges[place].end:
            raise Damaged(f"group {one.group} stands at {one.offset} of {one.topic}[{one.partition}], which is not covered")


def _segment(directory: Path, segment: Segment, done_below: int | None, *, compacted: bool) -> int | None:
    """The oldest time of a record that a group had not done with."""
    count, expected, since_ms = 0, segment.first, None
    for record in files.records(directory, segment):
        if record.offset < expected or record.offset >= segment.next or (not compacted and record.offset != expected):
            raise Damaged(f"{segment.name}: offset {record.offset} comes where {expected} should")
        count, expected = count + 1, record.offset + 1
        if done_below is not None and record.offset >= done_below:
            since_ms = min(record.timestamp_ms, record.timestamp_ms if since_ms is None else since_ms)
    if count != segment.records or (not compacted and expected != segment.next):
        raise Damaged(f"{segment.name} holds {count} records up to offset {expected}, it had {segment.records} up to {segment.next}")
    return since_ms


def _table(directory: Path, table: Table) -> None:
    rows = sum(block.count(b"\n") for block in files.blocks(directory, table))
    if rows != table.rows:
        raise Damaged(f"{table.name} holds {rows} rows, it had {table.rows}")
