"""Events that were moved to topics with more partitions: their rows, and what a cursor of before finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from projections import inbox
from projections.inbox import Row
from projections.offsets import fold_generation, generation
from schemas import codec, ids, keys
from schemas.events import Accepted, First, Ingested, Origin
from schemas.records import Record
from schemas.topics import FIRST_GENERATION, generation_of, generation_topic

ORGANIZATIONS = [ids.organization_id(number, bytes(10)) for number in range(6)]
Log = dict[int, list[Accepted]]


@pytest.fixture(autouse=True)
def _first_generation_afterwards() -> Iterator[None]:
    yield
    fold_generation(FIRST_GENERATION)


def accept(log: Log, partitions: int, organization: ids.OrganizationId, number: int) -> None:
    partition = keys.partition_of(keys.record_key(organization), partitions)
    event = Ingested(
        v=1, id=ids.event_id(number, bytes(10)), organization=organization, mode="live", type="t", received_at_ms=number,
        fingerprint="0" * 64, payload=Raw(b"%d" % number),
    )  # fmt: skip
    # Ingested offsets have gaps where duplicates were.
    log[partition].append(Accepted(v=1, ingested=Origin(2 * len(log[partition]) + 1, number), event=event))


def moved(old: Log, generation: int, partitions: int) -> Log:
    """To more partitions, merged by time; one that was moved before keeps the place it has from then."""
    new: Log = defaultdict(list)
    places = [(record.ingested.appended_at_ms, partition, offset) for partition, log in old.items() for offset, record in enumerate(log)]
    for _, partition, offset in sorted(places):
        record = old[partition][offset]
        first = record.first or First(generation=generation, partition=partition, offset=offset, ingested_offset=record.ingested.offset)
        to = new[keys.partition_of(keys.record_key(record.event.organization), partitions)]
        place = Origin(2 * len(to) + 1, record.ingested.appended_at_ms)
        to.append(msgspec.structs.replace(record, first=first, ingested=place))
    return new


def folded(log: Log, generation: int) -> dict[str, list[Row]]:
    """Rows by organization, as the fold gives them, in the order in which a page shows them."""
    fold_generation(generation)
    rows: dict[str, list[Row]] = defaultdict(list)
    for partition, records in log.items():
        values = [codec.accepted.decode(codec.encode(record)) for record in records]
        for row in inbox.fold(partition, [(Record(n, 1, None, b"", ()), value) for n, value in enumerate(values)], -1)[0]:
            rows[row.organization].append(row)
    return {name: sorted(found, key=lambda row: (row.generation, row.position)) for name, found in rows.items()}


@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=4).map(lambda steps: [sum(steps[: n + 1]) for n in range(len(steps))]),
    whose=st.lists(st.lists(st.sampled_from(ORGANIZATIONS), max_size=30), min_size=4, max_size=4),
)
def test_no_cursor_of_any_generation_skips_or_repeats_an_event_when_partitions_grow(
    counts: list[int], whose: list[list[ids.OrganizationId]]
) -> None:
    log: Log = defaultdict(list)
    before: dict[str, list[Row]] = {}
    number = 0
    for at, partitions in enumerate(counts, FIRST_GENERATION):
        if at > FIRST_GENERATION:
            log = moved(log, at - 1, partitions)
            assert folded(log, at) == before  # to be moved changes nothing of a row
        for organization in whose[at - 1]:
            number += 1
            accept(log, partitions, organization, number)
        now = folded(log, at)
        for name, rows in now.items():
            order = [row.event_id for row in rows]
            assert order == sorted(order)  # ids are numbered in the order of acceptance
            assert len({(row.generation, row.position) for row in rows}) == len(rows)
            known = before.get(name, [])
            assert rows[: len(known)] == known  # so what follows a position of before follows it still, and what is new comes last
        before = now


def test_the_generation_is_what_the_topics_say_and_the_first_where_they_say_nothing() -> None:
    assert generation_of(["events.ingested", "__consumer_offsets"]) == generation() == FIRST_GENERATION == 1
    assert generation_of(["events.ingested", generation_topic(2)]) == 2
    assert generation_of([generation_topic(9), generation_topic(10), generation_topic(3) + ".old"]) == 10
