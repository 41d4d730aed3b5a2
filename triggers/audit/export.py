"""Writing an audit export from `events.accepted`, and going on with one that is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from projections.log_reader import LogReader, Place, Range, bounds
from projections.rebuild import Progress
from runtime import topics
from runtime.clock import Clock
from runtime.settings import KafkaSettings
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key
from schemas.topics import EVENTS_ACCEPTED
from triggers.audit import check
from triggers.audit.chain import next_link
from triggers.audit.check import Broken, State
from triggers.audit.lines import Checkpoint, encode, entry

#: Records between checkpoints: what an export that was stopped does again.
RECORDS_PER_CHECKPOINT: Final = 10_000
_BATCH_RECORDS_MAX: Final = 10_000
_STALL_TIMEOUT_S: Final = 60.0


class NotSame(ValueError):
    """The file that is there is not an export of this organization from this log."""


def export(
    kafka: KafkaSettings,
    organization: OrganizationId,
    path: Path,
    clock: Clock,
    report: Callable[[Progress], None],
    *,
    records_per_checkpoint: int = RECORDS_PER_CHECKPOINT,
) -> State:
    """Everything accepted of an organization until now. A file that is there is checked first and gone on with behind its last checkpoint.

    Killed at any time it leaves a file that the same command completes. Raises `NotSame`, `check.Broken`, `OSError`,
    `projections.log_reader.LogError`, `confluent_kafka.KafkaException`.
    """
    partition = partition_of(record_key(organization), kafka.partitions)
    place = (EVENTS_ACCEPTED, partition)
    here = bounds(kafka, [place])[place]
    client = topics.admin(kafka)
    fresh = not path.exists() or not path.stat().st_size
    with path.open("w+b" if fresh else "r+b") as file:
        state = (_begun if fresh else _resumed)(file, organization, partition, topics.generation(client), here)
        _append(file, state, kafka, place, here.end, clock, report, records_per_checkpoint)
    return state


def _begun(file: BinaryIO, organization: OrganizationId, partition: int, generation: int, here: Range) -> State:
    about = check.about(organization, EVENTS_ACCEPTED, partition, generation, here.begin)
    file.write(encode(about))
    return check.begin(about)


def _resumed(file: BinaryIO, organization: OrganizationId, partition: int, generation: int, here: Range) -> State:
    """The state at the last checkpoint; what is behind it is written again."""
    try:
        state = check.check(file)
    except Broken as error:
        raise Broken(f"the file is damaged ({error}): keep it as it is, and export to another one") from None
    wanted = check.about(organization, EVENTS_ACCEPTED, partition, generation, state.about.first_offset)
    if state.about != wanted:
        raise NotSame(
            f"the file is about {state.about.organization} in {state.about.topic}[{state.about.partition}] of topic generation "
            f"{state.about.generation}: export to another one"
        )
    if not state.size:
        state = check.begin(state.about)
    elif state.open_records:
        file.seek(0)
        state = check.check(_head(file, state.size))
    if not here.begin <= state.next_offset <= here.end:
        raise NotSame(
            f"the file ends at offset {state.next_offset}, and the log holds {here.begin} to {here.end}: "
            "it is of another log, or what is between has gone by retention"
        )
    file.seek(state.size or len(encode(state.about)))
    file.truncate()
    return state


def _head(file: BinaryIO, size: int) -> Iterator[bytes]:
    while file.tell() < size:
        yield file.readline()


def _append(
    file: BinaryIO,
    state: State,
    kafka: KafkaSettings,
    place: Place,
    end: int,
    clock: Clock,
    report: Callable[[Progress], None],
    records_per_checkpoint: int,
) -> None:
    key = record_key(state.about.organization)
    total, done, began_s = end - state.next_offset, 0, clock.monotonic_s()
    reader = LogReader(kafka, batch_records_max=_BATCH_RECORDS_MAX, stall_timeout_s=_STALL_TIMEOUT_S, headers=True)
    try:
        for batch in reader.read({place: Range(state.next_offset, end)}):
            for record in (record for chunk in batch for record in chunk.records):
                done += 1
                if record.key != key:
                    continue
                link = next_link(state.link, record.offset, record.timestamp_ms, record.key, record.headers, record.value)
                line = entry(record, link)
                file.write(encode(line))
                state.took(line, link)
                if state.open_records >= records_per_checkpoint:
                    _checkpoint(file, state, record.offset + 1)
            report(Progress("export", done, total, clock.monotonic_s() - began_s))
    finally:
        reader.close()
    _checkpoint(file, state, end)


def _checkpoint(file: BinaryIO, state: State, next_offset: int) -> None:
    """On the disk before it counts."""
    if (next_offset, 0) == (state.next_offset, state.open_records) and state.checkpoints:
        return  # nothing came
    file.write(encode(Checkpoint(next_offset=next_offset, records=state.records, chain=state.link.hex())))
    file.flush()
    os.fsync(file.fileno())
    state.checkpoint(next_offset)
    state.size = file.tell()
