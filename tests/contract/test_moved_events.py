"""Events that were moved to a later topic generation, on a real Postgres: the rows of before, and cursors of before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from projections import inbox, queries
from projections.cursors import Position
from projections.offsets import fold_generation, load_offsets
from projections.queries import Owner
from runtime.settings import Settings
from schemas import codec
from schemas.events import First, Origin
from schemas.records import Record
from schemas.topics import EVENTS_ACCEPTED, FIRST_GENERATION
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
