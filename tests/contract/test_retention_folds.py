"""Retention in the folds, on a real Postgres: whatever way marks and what they are about come in, the same rows stay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from projections import queries, retention
from projections.cursors import Position
from projections.fold import Rows
from runtime.settings import Settings
from schemas import codec
from schemas.events import MODES, Ingested, Mode
from schemas.lifecycle import Dropped, RetentionMoved
from schemas.records import Record
from schemas.topics import DELIVERIES_DEAD, EVENTS_ACCEPTED, LIFECYCLE
from tests.contract.test_folds import KEY, LOG, ORGANIZATION, Log, accepted, both_ways, event_id, one_pass, shadow, ways

LIVE = queries.Owner(ORGANIZATION, "live")


def moved(before_ms: int, mode: Mode = "live") -> bytes:
    return codec.encode(RetentionMoved(v=1, organization=ORGANIZATION, mode=mode, before_ms=before_ms, actor="cli:ada", at_ms=9))


def again(number: int, ingested: int) -> bytes:
    """An event that was accepted once more: it has its row, and this position has none."""
    event = codec.accepted.decode(accepted(number)).event
    assert isinstance(event, Ingested)
    return codec.encode_accepted(codec.encode(event), ingested, 500)


def log() -> Log:
    """The log of the folds, and marks: one that moves twice and one that would go back; one of the other mode takes nothing of ours."""
    dropped = codec.encode(Dropped(v=1, topic=DELIVERIES_DEAD, generation=1, partition=0, offset=5, actor="cli:ada", at_ms=9))
    values = [moved(1), dropped, moved(0), moved(1_000, "test"), moved(1), moved(2), moved(1)]
    more = [again(1, 8), again(5, 9)]
    begin = len(LOG[EVENTS_ACCEPTED])
    return {
        **LOG,
        EVENTS_ACCEPTED: [*LOG[EVENTS_ACCEPTED], *(Record(begin + n, 1, KEY, value, ()) for n, value in enumerate(more))],
        LIFECYCLE: [Record(n, 1, b"-" if value is dropped else KEY, value, ()) for n, value in enumerate(values)],
    }


RETAINED = log()


@given(way=ways(RETAINED))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_same_rows_stay_in_whatever_order_topics_and_marks_are_folded(
    way: Sequence[tuple[str, int, int, str]], settings: Settings
) -> None:
    expected, found = asyncio.run(both_ways(settings, RETAINED, way))
    assert found == expected
    assert [row[-1] for row in expected["retention"]] == [event_id(2), event_id(1_000)]
    assert [row[3] for row in expected["retention"]] == [5, 3]  # the record that moved it there, of several with the same mark
    assert [row[5] for row in expected["inbox"]] == [event_id(n) for n in (2, 3, 4, 5, 7)]
    assert [row[4] for row in expected["unacked"]] == [event_id(n) for n in (3, 5, 7)]
    assert {row[2] for table in ("plans", "rounds", "attempts") for row in expected[table]} == {event_id(2)}
    assert sorted(row[2] for row in expected["acks"]) == [event_id(n) for n in (2, 4, 9)]
    assert len(expected["duplicates"]) == 2
    assert [row[4:] for row in expected["removed"]] == [(13, event_id(5))]


async def test_a_page_says_how_far_retention_has_come_also_where_nothing_is_left(settings: Settings) -> None:
    tables = await shadow(settings, RETAINED)
    await one_pass(tables)
    asked: list[tuple[Mode, queries.Status, int]] = [("live", "all", -1), ("live", "unacked", 12), ("test", "all", -1)]
    pages = [
        await queries.page(
            tables.connection, LIVE._replace(mode=mode), status, None, Position(1, 0, after), limit=100, bytes_max=1_000
        )
        for mode, status, after in asked
    ]  # fmt: skip
    marks = [await queries.kept_from(tables.connection, LIVE._replace(mode=mode)) for mode in MODES]
    await tables.connection.close()
    last = Position(1, 0, 13)
    assert [(len(page.items), page.removed, page.more) for page in pages] == [(5, last, False), (0, last, False), (0, None, False)]
    assert marks == [event_id(2), event_id(1_000)]


async def test_where_there_is_no_retention_a_page_tells_of_no_gap(settings: Settings) -> None:
    """A position without a row is there nevertheless: an event that was accepted twice."""
    tables = await shadow(settings, {**RETAINED, LIFECYCLE: []})
    await one_pass(tables)
    page = await queries.page(tables.connection, LIVE, "all", None, Position(1, 0, -1), limit=100, bytes_max=1_000)
    removed = await (await tables.connection.execute("SELECT position FROM removed")).fetchall()
    await tables.connection.close()
    assert (len(page.items), page.removed, removed) == (7, None, [(13,)])


def test_rows_to_be_loaded_are_split_by_their_own_organization_and_mode() -> None:
    rows = Rows("acks", ("organization", "mode", "event_id"), [("a", "live", "evt_1"), ("a", "live", "evt_2"), ("a", "test", "evt_1")])
    stay, gone = retention.split(rows, {("a", "live"): "evt_2", ("b", "test"): "evt_9"})
    assert (stay.rows, gone.rows) == ([("a", "live", "evt_2"), ("a", "test", "evt_1")], [("a", "live", "evt_1")])
    assert retention.split(rows, {}) == (rows, Rows("acks", rows.columns, []))
