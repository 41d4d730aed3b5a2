"""A backup of few partitions, rewritten for more: whole, in order, and of the same inbox."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from delivery.journal import Checkpoint, encode_checkpoint, read_checkpoint
from processors.dedup import decode_marker
from projections import inbox
from projections.offsets import fold_generation
from runtime.clock import SYSTEM
from schemas import codec, keys
from schemas.deliveries import Planned
from schemas.lifecycle import Dropped
from schemas.topics import (
    DEDUP_APP,
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_FIFO,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    LIFECYCLE,
    declared,
)
from tests.grown_log import DELAYS_S, EVENTS, GONE, NEW, OLD, ORGANIZATIONS, RETRY, Log, log
from triggers.backup import files, manifest
from triggers.backup.check import check, read_manifest
from triggers.backup.manifest import MANIFEST, Committed, Covered, Manifest, Table, TopicAbout
from triggers.grow.rewrite import NotReady, rewrite
from triggers.grow.segments import Out


def quiet(_: Any) -> None:
    pass


def save(directory: Path, records: Log) -> None:
    """Delivery has done with the first 30 retries of each partition."""
    segments, ends = [], {}
    for topic in declared(DELAYS_S):
        out = Out(directory, topic.name, 2_000)
        for number in range(OLD):
            for record in records.get((topic.name, number), []):
                out.put(number, record)
        segments += out.close()
        ends[topic.name] = out.ends
    committed = []
    for number in range(OLD):
        checkpoint = encode_checkpoint(Checkpoint(h=ends[EVENTS_INGESTED][number] - 1, t={DELIVERIES_ATTEMPTS: 40, RETRY: 31}))
        stands = {(DEDUP_APP, EVENTS_INGESTED): -1, (DELIVERY_GROUP, EVENTS_ACCEPTED): -1, (DELIVERY_GROUP, RETRY): 30}
        committed += [
            Committed(
                group=group, topic=topic, partition=number, offset=ends[topic][number] if at < 0 else at,
                metadata=checkpoint if topic == EVENTS_ACCEPTED else "",
            )
            for (group, topic), at in stands.items()
        ]  # fmt: skip
    tables = []
    replays = {
        "replays": (["id", "organization", "from_position", "until_position"], f"r1\t{ORGANIZATIONS[0]}\t0\t5\n"),
        "replay_endpoints": (["replay", "next_position", "ingested_high"], "r1\t3\t-1\n"),
        "operators": (["id"], "op\n"),
    }
    for table, (columns, rows) in replays.items():
        with files.writing(directory, f"control/{table}.copy.gz") as (file, made):
            file.put(rows.encode())
        tables.append(Table(name=f"control/{table}.copy.gz", size=made.size, digest=made.digest, table=table, columns=columns, rows=1))
    _, content = manifest.encode(
        Manifest(
            format=1, run=3, made_at_ms=1, version="1", cluster="c", generation=1, partitions=OLD, delays_s=DELAYS_S, revision="r",
            master_keys=[], oldest_key=None, segments=segments, committed=committed, tables=tables,
            topics=[
                TopicAbout(name=one.name, topic_id="x", compacted=one.cleanup != "delete", timestamp=one.timestamp, config={})
                for one in declared(DELAYS_S)
            ],
            covered=[
                Covered(topic=one.name, partition=number, begin=0, end=ends[one.name].get(number, 0))
                for one in declared(DELAYS_S)
                for number in range(OLD)
            ],
        )
    )  # fmt: skip
    files.write_whole(directory / MANIFEST, content)


def read(directory: Path, made: Manifest) -> Log:
    return {
        (topic.name, number): [record for part in made.segments_of((topic.name, number)) for record in files.records(directory, part)]
        for topic in made.topics
        for number in range(made.partitions)
    }


def rows(records: Log, partitions: int, generation: int) -> list[Any]:
    fold_generation(generation)
    try:
        return sorted(
            row
            for number in range(partitions)
            for row in inbox.fold(
                number, [(one, codec.accepted.decode(one.value)) for one in records.get((EVENTS_ACCEPTED, number), [])], -1
            )[0]
        )
    finally:
        fold_generation(1)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Log, Manifest, Path]:
    before, after = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after")
    records = log()
    save(before, records)
    check(before, quiet)
    digest = rewrite(before, after, NEW, SYSTEM, quiet, segment_bytes_max=2_000)
    checked = check(after, quiet)  # a backup like any other
    assert checked.digest == digest
    return records, read(after, checked.manifest), checked.manifest, after


def test_the_inbox_is_the_same_row_by_row(grown: tuple[Log, Log, Manifest, Path]) -> None:
    records, moved, made, _ = grown
    assert (made.generation, made.partitions) == (2, NEW)
    assert len(rows(moved, NEW, 2)) == EVENTS
    assert rows(moved, NEW, 2) == rows(records, OLD, 1)


def test_every_record_is_there_once_in_the_order_of_its_key_with_its_time(grown: tuple[Log, Log, Manifest, Path]) -> None:
    def by_key(records: Log, topic: str, partitions: int) -> dict[bytes | None, list[tuple[int, bytes]]]:
        found = defaultdict(list)
        for number in range(partitions):
            for one in records.get((topic, number), []):
                found[one.key].append((one.timestamp_ms, one.value or b""))
        return found

    records, moved, _, _ = grown
    for topic in (EVENTS_INGESTED, RETRY):
        assert by_key(moved, topic, NEW) == by_key(records, topic, OLD)
    for (topic, number), part in moved.items():
        if topic in (EVENTS_INGESTED, EVENTS_ACCEPTED, DELIVERIES_ATTEMPTS, RETRY):
            assert all(keys.partition_of(one.key or b"", NEW) == number for one in part)


def test_what_is_named_is_what_was_named(grown: tuple[Log, Log, Manifest, Path]) -> None:
    _, moved, _, _ = grown
    for number in range(NEW):
        for record in moved[EVENTS_ACCEPTED, number]:
            accepted = codec.accepted.decode(record.value)
            assert codec.ingested.decode(moved[EVENTS_INGESTED, number][accepted.ingested.offset].value).id == accepted.event.id
        for record in moved[DELIVERIES_ATTEMPTS, number]:
            planned = codec.journal.decode(record.value)
            assert isinstance(planned, Planned)
            assert codec.accepted.decode(moved[EVENTS_ACCEPTED, number][planned.accepted_offset].value).event.id == planned.event_id
        for record in moved[DEDUP_CHANGELOG, number]:
            marker = decode_marker(record.value or b"")
            assert marker.partition == number
            assert codec.ingested.decode(moved[EVENTS_INGESTED, number][marker.offset].value).id == marker.event_id
    assert sum(len(moved[DEDUP_CHANGELOG, number]) for number in range(NEW)) == EVENTS
    rejected = [(n, one) for n in range(NEW) for one in moved[EVENTS_REJECTED, n]]
    for number, one in rejected:
        headers = dict(one.headers)
        assert headers["rejected-partition"] == b"%d" % number
        origin = (headers["rejected-topic"] or b"").decode()
        assert moved[origin, number][int(headers["rejected-offset"] or b"")].value == one.value
    assert sorted(one.value or b"" for _, one in rejected) == [b"poison", b"poison of lifecycle", b"poison of lifecycle"]
    (drop,) = [one for one, number in decisions(moved) if one.generation == 2]
    assert moved[EVENTS_REJECTED, drop.partition][drop.offset].value == b"poison"


def decisions(log: Log) -> list[tuple[Dropped, int]]:
    """With the partition in which each stands."""
    found = []
    for (topic, number), records in log.items():
        for one in records if topic == LIFECYCLE else ():
            if b"poison" not in (one.value or b"") and isinstance(entry := codec.lifecycle.decode(one.value), Dropped):
                found.append((entry, number))
    return found


def test_marks_erasures_and_what_was_decided_of_a_letter_that_is_gone_go_with_their_organization(
    grown: tuple[Log, Log, Manifest, Path],
) -> None:
    def by_key(log: Log, partitions: int) -> dict[bytes | None, list[bytes]]:
        found = defaultdict(list)
        for number in range(partitions):
            for one in log.get((LIFECYCLE, number), []):
                if one.key != b"-":
                    assert number == keys.partition_of(one.key or b"", partitions)
                    found[one.key].append(one.value or b"")
        return {key: sorted(values) for key, values in found.items()}

    records, moved, _, _ = grown
    assert by_key(moved, NEW) == by_key(records, OLD)  # byte for byte
    told = [one for one, _ in decisions(moved) if one.letter is not None]
    assert [(one.letter, one.generation, one.offset) for one in told] == 2 * [(GONE, 1, 7)]
    assert sum(len(moved[LIFECYCLE, number]) for number in range(NEW)) == 2 * 4 + 1


def test_groups_go_on_with_what_they_had_not_done(grown: tuple[Log, Log, Manifest, Path]) -> None:
    records, moved, made, _ = grown
    stands = {(one.group, one.topic, one.partition): one for one in made.committed}
    left = [
        codec.retry_task.decode(one.value).event_id
        for n in range(NEW)
        for one in moved[RETRY, n][stands[DELIVERY_GROUP, RETRY, n].offset :]
    ]
    assert sorted(left) == sorted(codec.retry_task.decode(one.value).event_id for n in range(OLD) for one in records[RETRY, n][30:])
    for number in range(NEW):
        assert stands[DEDUP_APP, EVENTS_INGESTED, number].offset == len(moved[EVENTS_INGESTED, number])
        at = stands[DELIVERY_GROUP, EVENTS_ACCEPTED, number]
        assert at.offset == len(moved[EVENTS_ACCEPTED, number])
        found = read_checkpoint(at.metadata)
        plans = [codec.journal.decode(one.value).event_id for one in moved[DELIVERIES_ATTEMPTS, number][found.t[DELIVERIES_ATTEMPTS] :]]
        needed = {codec.journal.decode(one.value).event_id for n in range(OLD) for one in records[DELIVERIES_ATTEMPTS, n][40:]}
        here = {codec.journal.decode(one.value).event_id for one in moved[DELIVERIES_ATTEMPTS, number]}
        assert needed & here <= set(plans)
        highs = [codec.accepted.decode(one.value).ingested.offset for one in moved[EVENTS_ACCEPTED, number]]
        assert found.h == (max(highs) if highs else found.h)


def test_a_fifo_endpoint_and_a_replay_stand_where_they_stood(grown: tuple[Log, Log, Manifest, Path]) -> None:
    records, moved, made, after = grown
    number, old = keys.partition_of(keys.record_key(ORGANIZATIONS[0]), NEW), keys.partition_of(keys.record_key(ORGANIZATIONS[0]), OLD)
    (position,) = [codec.fifo_position.decode(one.value) for one in moved[DELIVERIES_FIFO, number]]
    last = codec.fifo_position.decode(records[DELIVERIES_FIFO, old][-1].value)

    def event(log: Log, partition: int, offset: int) -> str:
        return codec.accepted.decode(log[EVENTS_ACCEPTED, partition][offset].value).event.id

    assert event(moved, number, position.accepted_offset) == event(records, old, last.accepted_offset)
    table = next(one for one in made.tables if one.table == "replay_endpoints")
    _, next_position, high = b"".join(files.blocks(after, table)).split(b"\t")
    ours = [at for at, one in enumerate(moved[EVENTS_ACCEPTED, number]) if one.key == keys.record_key(ORGANIZATIONS[0])]
    before = [one.offset for one in records[EVENTS_ACCEPTED, old] if one.key == keys.record_key(ORGANIZATIONS[0])]
    assert [at >= int(next_position) for at in ours] == [at >= 3 for at in before][: len(ours)]
    assert int(high) == -1


def test_what_is_not_at_rest_and_fewer_partitions_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    save(before, log())
    with pytest.raises(ValueError, match="only become more"):
        rewrite(before, after, OLD, SYSTEM, quiet)
    _, made = read_manifest(before)
    behind = [msgspec.structs.replace(one, offset=one.offset - 1) if one.group == DEDUP_APP else one for one in made.committed]
    files.write_whole(before / MANIFEST, manifest.encode(msgspec.structs.replace(made, committed=behind))[1])
    with pytest.raises(NotReady, match=r"dedup has 2 records of events.ingested to go"):
        rewrite(before, after, NEW, SYSTEM, quiet)
    assert not after.exists()
