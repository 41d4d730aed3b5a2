"""The two ways of writing the inbox, INSERT and COPY, leave the same tables: whatever is in the rows, acknowledged, there already, passed
by retention or moved from another topic generation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import Raw

from projections import acks, inbox, lifecycle
from projections.fold import Fold
from projections.offsets import fold_generation, load_offsets
from runtime.settings import Settings
from schemas import codec, ids, keys
from schemas.events import MODES, Ack, First, Ingested, Mode
from schemas.lifecycle import RetentionMoved
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED, FIRST_GENERATION, INBOX_ACKS, LIFECYCLE
from tests.contract.test_folds import Shadow, shadow

OWNERS = [ids.organization_id(n, bytes(10)) for n in (1, 2)]
EVENTS = 12
NEVER, ALWAYS = 1 << 62, 1

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)

identities = st.tuples(st.sampled_from(OWNERS), st.sampled_from(MODES), st.integers(0, EVENTS - 1))


def event_id(number: int) -> ids.EventId:
    return ids.event_id(number, bytes(10))


@st.composite
def accepted(draw: st.DrawFn) -> list[Record]:
    """Accepted records of which some tell of an event again: as a copy that a crash left, or at an ingested offset of its own. The first
    ones were moved here from another partition of the first generation."""
    records: list[Record] = []
    moved = draw(st.sampled_from([0, 0, 5, 20]))
    for offset, (owner, mode, number) in enumerate(draw(st.lists(identities, min_size=1, max_size=20))):
        event = Ingested(
            v=1, id=event_id(number), organization=owner, mode=mode, type=draw(st.sampled_from(["t", "order.paid"])),
            received_at_ms=draw(st.integers(0, 1 << 52)), fingerprint="f" * 64, subject=draw(st.none() | texts),
            occurred_at=draw(st.none() | texts), content_type=draw(texts), base64=draw(st.booleans()),
            cloudevent=draw(st.none() | st.dictionaries(texts, texts | st.booleans() | st.integers(-5, 5), max_size=3)),
            payload=Raw(codec.encode_attributes({"text": draw(texts)}).encode()),
        )  # fmt: skip
        ingested = offset - draw(st.sampled_from([0, 0, 0, 1]))
        value = codec.encode_accepted(codec.encode(event), max(0, ingested), draw(st.integers(0, 1 << 52)))
        if offset < moved:
            first = First(generation=1, partition=5, offset=1_000 + offset, ingested_offset=2_000 + offset)
            value = codec.encode(msgspec.structs.replace(codec.accepted.decode(value), first=first))
        records.append(Record(offset, offset, keys.record_key(owner), value, ()))
    return records


def acknowledged(found: Sequence[tuple[Any, Mode, int]]) -> list[Record]:
    values = [codec.encode(Ack(v=1, organization=owner, mode=mode, ids=[event_id(number)])) for owner, mode, number in found]
    return [Record(n, n, keys.record_key(owner), value, ()) for n, ((owner, *_), value) in enumerate(zip(found, values, strict=True))]


def marked(found: Sequence[tuple[Any, Mode, int]]) -> list[Record]:
    """Retention has come so far."""
    moved = [
        RetentionMoved(v=1, organization=owner, mode=mode, before_ms=number, actor="cli:ada", at_ms=9) for owner, mode, number in found
    ]
    return [Record(n, n, keys.record_key(one.organization), codec.encode(one), ()) for n, one in enumerate(moved)]


async def fold(tables: Shadow, fold: Fold, records: Sequence[Record], edges: Sequence[int]) -> None:
    for begin, end in pairwise(edges):
        await fold.write(tables.connection, 0, fold.decode(0, records[begin:end]), begin, end)


@given(events=accepted(), acked=st.lists(identities, max_size=6), passed=st.lists(identities, max_size=2), data=st.data())
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_copied_and_inserted_batches_leave_the_same_tables(
    events: list[Record],
    acked: list[tuple[Any, Mode, int]],
    passed: list[tuple[Any, Mode, int]],
    data: st.DataObject,
    settings: Settings,
) -> None:
    edges = sorted({0, len(events), *data.draw(st.lists(st.integers(0, len(events)), max_size=3))})
    log, marks = acknowledged(acked), marked(passed)
    first = data.draw(st.integers(0, len(log)))  # acks before their events, and after them

    async def by(rows_min: int) -> Any:
        tables = await shadow(settings)
        fold_generation(2)
        try:
            await tables.reset()
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(inbox, "COPY_ROWS_MIN", rows_min)
                await load_offsets(tables.connection, {(LIFECYCLE, 0)})
                await fold(tables, lifecycle.FOLD, marks, [0, len(marks)])
                await fold(tables, acks.FOLD, log, [0, first])
                await fold(tables, inbox.FOLD, events, edges)
                await fold(tables, acks.FOLD, log, [first, len(log)])
            return await tables.dump()
        finally:
            fold_generation(FIRST_GENERATION)
            await tables.connection.close()

    inserted, copied = asyncio.run(by(NEVER)), asyncio.run(by(ALWAYS))
    assert copied == inserted
    assert inserted["inbox"] or passed


async def test_a_row_that_is_there_is_not_written_twice_and_those_beside_it_are_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second accepted record of an event: COPY refuses the batch, INSERT takes it up. The partition moves once."""
    monkeypatch.setattr(inbox, "COPY_ROWS_MIN", ALWAYS)
    written: list[int] = []
    insert = inbox.insert

    async def counted(connection: Any, rows: list[inbox.Row]) -> None:
        written.append(len(rows))
        await insert(connection, rows)

    monkeypatch.setattr(inbox, "insert", counted)
    numbers = [0, 1, 2, 1, 3]
    records = []
    for offset, number in enumerate(numbers):
        event = Ingested(
            v=1, id=event_id(number), organization=OWNERS[0], mode="live", type="t", received_at_ms=1, fingerprint="f" * 64,
            payload=Raw(b"1"),
        )  # fmt: skip
        value = codec.encode_accepted(codec.encode(event), offset, 1)
        records.append(Record(offset, offset, keys.record_key(OWNERS[0]), value, ()))
    tables = await shadow(settings)
    await tables.reset()
    await fold(tables, inbox.FOLD, records, [0, 3, 5])
    found = await tables.dump()
    offsets = await load_offsets(tables.connection, {(EVENTS_ACCEPTED, 0), (INBOX_ACKS, 0)})
    await tables.connection.close()
    assert written == [2]
    assert sorted((row[5], row[3]) for row in found["inbox"]) == [(event_id(0), 0), (event_id(1), 1), (event_id(2), 2), (event_id(3), 4)]
    assert len(found["unacked"]) == 4
    assert offsets[EVENTS_ACCEPTED, 0] == 5


async def test_a_batch_that_postgres_refuses_otherwise_is_not_taken_for_one_that_is_there(settings: Settings) -> None:
    """A row that is there already is the only reason to go the other way: anything else fails loudly, and nothing stays."""
    tables = await shadow(settings)
    await tables.reset()
    row = inbox.Row(OWNERS[0], "live", 1, 0, 0, event_id(1), "t", "\0", None, 1, 1, 0, "c", b"1", b"h" * 32, False, None, "plain")
    with pytest.raises(psycopg.DataError):
        async with tables.connection.transaction():
            await inbox.copy(tables.connection, [row])
    found = await tables.dump()
    await tables.connection.close()
    assert (found["inbox"], found["unacked"]) == ([], [])
