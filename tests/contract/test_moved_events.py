"""Events that were moved to a later topic generation, on a real Postgres: rows and cursors of before, and what retention takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from psycopg import sql

from projections import inbox, lifecycle, queries, retention
from projections.cursors import Position
from projections.offsets import fold_generation, load_offsets
from projections.queries import Owner
from runtime.settings import Settings
from runtime.sql import compose
from schemas import codec
from schemas.events import First, Origin
from schemas.lifecycle import RetentionMoved
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED, FIRST_GENERATION, LIFECYCLE
from tests.contract.test_folds import KEY, ORGANIZATION, accepted, event_id, shadow


@pytest.fixture(autouse=True)
def _first_generation_afterwards() -> Iterator[None]:
    yield
    fold_generation(FIRST_GENERATION)


def moved(number: int, partition: int, offset: int) -> bytes:
    """As a move writes it: at the new place of its ingested record, with the place it had."""
    value = codec.accepted.decode(accepted(number))
    first = First(generation=1, partition=partition, offset=offset, ingested_offset=number)
    return codec.encode(msgspec.structs.replace(value, ingested=Origin(100 + number, value.ingested.appended_at_ms), first=first))


def test_a_cursor_of_before_goes_on_with_the_next_event_after_partitions_were_grown(settings: Settings) -> None:
    # Offsets of before are far above those of the new partition, and its first native events have the lowest.
    values = [*(moved(n, 5, 1_000 + n) for n in range(4)), codec.encode(codec.accepted.decode(accepted(500)))]
    records = [Record(offset, 1, KEY, value, ()) for offset, value in enumerate(values)]

    async def check() -> None:
        tables = await shadow(settings)
        try:
            await tables.reset()
            fold_generation(2)
            await tables.connection.execute("DELETE FROM projection_offsets")
            await load_offsets(tables.connection, {(EVENTS_ACCEPTED, 0)})
            for begin, end in ((0, 3), (3, 5)):
                await inbox.write(tables.connection, 0, inbox.FOLD.decode(0, records[begin:end]), begin, end)
            wanted = [*(event_id(n) for n in range(4)), event_id(500)]
            for status in ("all", "unacked"):
                for seen in range(5):
                    after = Position(1, 5, 999 + seen)
                    assert await page(tables.connection, status, after) == wanted[seen:], (status, seen)
                assert await page(tables.connection, status, Position(2, 0, 3)) == wanted[4:]
            found = await queries.find_event(tables.connection, Owner(ORGANIZATION, "live"), event_id(2))
            assert found is not None
            assert (found.generation, found.partition, found.position, found.ingested_offset) == (1, 5, 1_002, 2)
            assert await queries.ingested_high(tables.connection, 0) == 500
        finally:
            await tables.connection.close()

    async def page(connection: Any, status: Any, after: Position) -> list[str]:
        found = await queries.page(connection, Owner(ORGANIZATION, "live"), status, None, after, limit=10, bytes_max=1_000_000)
        return [item.event_id for item in found.items]

    asyncio.run(check())


def mixed() -> list[Record]:
    """Four that were moved from partition 5, and two that were accepted since. Their ids hold 0 to 3, 500 and 501."""
    values = [*(moved(n, 5, 1_000 + n) for n in range(4)), *(accepted(n) for n in (500, 501))]
    return [Record(offset, 1, KEY, value, ()) for offset, value in enumerate(values)]


def mark(before_ms: int) -> list[Record]:
    value = codec.encode(RetentionMoved(v=1, organization=ORGANIZATION, mode="live", before_ms=before_ms, actor="cli:ada", at_ms=9))
    return [Record(0, 1, KEY, value, ())]


@pytest.mark.parametrize("taken", [2, 4, 501, 502])
async def test_what_retention_took_of_each_generation_is_known_in_whatever_way_it_was_folded(
    taken: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = mixed()
    fold_generation(2)
    tables = await shadow(settings)

    async def begin() -> None:
        await tables.reset()
        await load_offsets(tables.connection, {(EVENTS_ACCEPTED, 0), (LIFECYCLE, 0)})

    async def fold_mark() -> None:
        await lifecycle.FOLD.write(tables.connection, 0, lifecycle.FOLD.decode(0, mark(taken)), 0, 1)

    async def found() -> Any:
        dumped = await tables.dump()
        return dumped["inbox"], dumped["unacked"], dumped["removed"]

    try:
        ways = []
        for rows_min in (1, 1_000):
            monkeypatch.setattr(inbox, "COPY_ROWS_MIN", rows_min)
            await begin()
            await inbox.write(tables.connection, 0, inbox.FOLD.decode(0, events), 0, 6)
            await fold_mark()
            ways.append(await found())
            await begin()
            await inbox.write(tables.connection, 0, inbox.FOLD.decode(0, events[:2]), 0, 2)
            await fold_mark()
            await inbox.write(tables.connection, 0, inbox.FOLD.decode(0, events[2:]), 2, 6)
            ways.append(await found())
        assert all(way == ways[0] for way in ways)
        left, _, removed = ways[0]
        by_load = await loaded(tables.connection, begin, fold_mark, events)
        assert by_load == (len(left), removed)
        places = {0: (1, 5, 1_000), 1: (1, 5, 1_001), 2: (1, 5, 1_002), 3: (1, 5, 1_003), 500: (2, 0, 4), 501: (2, 0, 5)}
        last = {places[n][0]: (*places[n], event_id(n)) for n in places if n < taken}
        assert [row[2:] for row in removed] == [last[number] for number in sorted(last)]
        for after in (Position(1, 5, -1), Position(1, 5, 1_001), Position(2, 0, 5)):
            page = await queries.page(tables.connection, Owner(ORGANIZATION, "live"), "all", None, after, limit=10, bytes_max=1_000)
            assert page.removed == Position(*last[max(last)][:3])
    finally:
        await tables.connection.close()


async def loaded(connection: Any, begin: Any, fold_mark: Any, events: list[Record]) -> Any:
    """How many rows a rebuild would load behind the mark, and what it would remember of the others."""
    await begin()
    await fold_mark()
    rows, _ = inbox.rows_of(0, inbox.FOLD.decode(0, events), -1)
    (kept,) = await retention.leave_out(connection, rows, await retention.marks(connection))
    cursor = await connection.execute("SELECT * FROM removed AS t ORDER BY t")
    return len(kept.rows), await cursor.fetchall()


async def test_of_loaded_rows_of_an_event_that_of_the_earlier_generation_stays_whatever_its_offset(settings: Settings) -> None:
    again = codec.accepted.decode(accepted(2))
    again = msgspec.structs.replace(again, ingested=Origin(600, 1))
    records = [*mixed(), Record(6, 1, KEY, codec.encode(again), ())]
    fold_generation(2)
    tables = await shadow(settings)
    try:
        await tables.reset()
        (rows,), _ = inbox.rows_of(0, inbox.FOLD.decode(0, records), -1)
        await tables.connection.execute("CREATE TEMP TABLE loaded (LIKE inbox)")
        values = sql.SQL(", ").join(sql.Placeholder() * len(rows.columns))
        names = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
        for row in rows.rows:
            await tables.connection.execute(sql.SQL("INSERT INTO loaded ({}) VALUES ({})").format(names, values), row)
        table = inbox.TABLES[0]
        await tables.connection.execute(
            compose(
                "projections", table.keep, table=sql.Identifier("loaded"),
                order=sql.SQL(", ").join(map(sql.Identifier, table.order)), once=sql.SQL(", ").join(map(sql.Identifier, table.once)),
            )
        )  # fmt: skip
        cursor = await tables.connection.execute("SELECT generation, position FROM loaded WHERE event_id = %s", (event_id(2),))
        assert await cursor.fetchall() == [(1, 1_002)]
        cursor = await tables.connection.execute("SELECT count(*) FROM loaded")
        assert await cursor.fetchall() == [(6,)]
        cursor = await tables.connection.execute("SELECT generation, partition, position, event_id FROM removed")
        assert await cursor.fetchall() == [(2, 0, 6, event_id(2))]
    finally:
        await tables.connection.close()
