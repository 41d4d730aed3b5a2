"""Marks of retention, out of records: the highest holds, and what is about other records is passed over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from projections import lifecycle
from schemas import codec, ids
from schemas.events import MODES, Mode
from schemas.keys import record_key
from schemas.lifecycle import Dropped, LifecycleRecord, RetentionMoved
from schemas.records import Record

ORGANIZATION = ids.organization_id(1, bytes(10))


def moved(before_ms: int, mode: Mode = "live") -> RetentionMoved:
    return RetentionMoved(v=1, organization=ORGANIZATION, mode=mode, before_ms=before_ms, actor="cli:ada", at_ms=9)


def record(offset: int, value: LifecycleRecord, key: bytes = record_key(ORGANIZATION)) -> Record:
    return Record(offset, 1, key, codec.encode(value), ())


@given(marks=st.lists(st.tuples(st.integers(0, (1 << 48) - 1), st.sampled_from(MODES)), max_size=8))
def test_of_a_batch_the_highest_mark_of_each_mode_holds_as_its_first_record_set_it(marks: list[tuple[int, Mode]]) -> None:
    rows = lifecycle.fold((record(n, moved(*mark)), moved(*mark)) for n, mark in enumerate(marks))
    expected = {}
    for mode in MODES:
        if of_mode := [before for before, one in marks if one == mode]:
            expected[mode] = (marks.index((max(of_mode), mode)), lifecycle.first_id(max(of_mode)))
    assert {row.mode: (row.position, row.event_id) for row in rows} == expected


@given(before_ms=st.integers(1, (1 << 48) - 1), random=st.binary(min_size=10, max_size=10))
def test_a_mark_is_above_every_id_made_before_its_time_and_above_none_made_later(before_ms: int, random: bytes) -> None:
    assert ids.event_id(before_ms - 1, random) < lifecycle.first_id(before_ms) <= ids.event_id(before_ms, random)


def test_a_mark_under_another_organizations_key_is_parked_and_a_drop_has_anybodys() -> None:
    dropped = Dropped(v=1, topic="deliveries.dead", generation=1, partition=0, offset=5, actor="cli:ada", at_ms=9)
    decoded = lifecycle.decode(
        0, [record(0, moved(1)), record(1, dropped, b"-"), record(2, moved(2), b"org_other"), Record(3, 1, b"k", b"{", ())]
    )
    assert [one.offset for one, _ in decoded.records] == [0]
    assert [(parked.record.offset, parked.error.reason) for parked in decoded.parked] == [(2, "key_mismatch"), (3, "malformed")]
