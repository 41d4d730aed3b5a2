"""What a rebuild must find: each mutant is named by table, event, kind and position, and nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from projections import acks
from projections.digests import LISTED_MAX
from runtime.settings import Settings
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_INGESTED, INBOX_ACKS
from tests.contract.rebuild.rig import execute, fetch, fold_live, rebuild, sums

TOPICS = {
    "inbox": EVENTS_ACCEPTED, "unacked": EVENTS_ACCEPTED, "acks": INBOX_ACKS, "plans": DELIVERIES_ATTEMPTS, "attempts": DELIVERIES_ATTEMPTS,
    "rounds": DELIVERIES_ATTEMPTS, "duplicates": EVENTS_INGESTED,
}  # fmt: skip
POSITIONS = {"plans": "journal_offset", "rounds": "journal_offset", "attempts": "journal_offset", "duplicates": "ingested_offset"}


def row_of(settings: Settings, table: str, number: int = 7) -> tuple[str, str, str, int]:
    """(organization, mode, event id, position) of some row."""
    statement = f"SELECT organization, mode, event_id, {POSITIONS.get(table, 'position')} FROM {table} t ORDER BY t OFFSET %s LIMIT 1"
    (row,) = fetch(settings, statement, number)
    return (str(row[0]), str(row[1]), str(row[2]), int(row[3]))


def found(settings: Settings) -> set[tuple[Any, ...]]:
    """Verify, and check that nothing was changed by it."""
    before = sums(settings)
    report = rebuild(settings)
    assert not report.equal
    assert not report.swapped
    assert sums(settings) == before
    return {(one.table, one.kind, one.event_id, one.topic, one.position, one.columns) for table in report.tables for one in table.listed}


@pytest.mark.parametrize("table", TOPICS)
def test_a_row_that_was_deleted_is_missed(table: str, live: Settings) -> None:
    organization, mode, event_id, position = row_of(live, table)
    where = f"organization = %s AND mode = %s AND event_id = %s AND {POSITIONS.get(table, 'position')} = %s"
    deleted = execute(live, f"DELETE FROM {table} WHERE {where}", organization, mode, event_id, position)
    expected = {(table, "missing", event_id, TOPICS[table], position, ())}
    assert deleted >= 1
    assert found(live) == expected


@pytest.mark.parametrize("table", TOPICS)
def test_a_row_that_no_record_made_is_told(table: str, live: Settings) -> None:
    described = fetch(live, "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0", table)
    made = {"event_id": "'evt_made_up'", POSITIONS.get(table, "position"): "1000000" if table != "acks" else "0"}
    columns = [str(row[0]) for row in described]
    values = ", ".join(made.get(column, column) for column in columns)
    assert execute(live, f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t ORDER BY t OFFSET 7 LIMIT 1") == 1
    assert {(one[0], one[1], one[2]) for one in found(live)} == {(table, "unknown", "evt_made_up")}


def test_one_changed_byte_is_told_with_its_column(live: Settings) -> None:
    organization, _, event_id, position = row_of(live, "inbox")
    change = "UPDATE inbox SET payload = set_byte(payload, 1, get_byte(payload, 1) # 1) WHERE organization = %s AND event_id = %s"
    assert execute(live, change, organization, event_id) == 1
    assert found(live) == {("inbox", "changed", event_id, EVENTS_ACCEPTED, position, ("payload",))}


def test_two_rows_that_changed_places_are_both_told(live: Settings) -> None:
    organization, mode, first, place = row_of(live, "inbox", 7)
    other = "SELECT event_id, position FROM inbox WHERE organization = %s AND mode = %s AND event_id <> %s LIMIT 1"
    ((second, second_place),) = fetch(live, other, organization, mode, first)
    move = "UPDATE inbox SET position = %s WHERE organization = %s AND event_id = %s"
    for event_id, position in ((first, 1_000_000), (second, place), (first, second_place)):
        assert execute(live, move, position, organization, event_id) == 1
    told = {(table, kind, position) for table, kind, _, _, position, columns in found(live) if "event_id" in columns}
    assert told == {("inbox", "changed", place), ("inbox", "changed", second_place)}


def test_a_lost_ack_is_told_although_the_event_looks_as_if_nobody_had_acked_it(live: Settings) -> None:
    # Not one that came for an event which is in no inbox.
    statement = "SELECT a.organization, a.event_id, a.position, i.position FROM acks a JOIN inbox i USING (organization, mode, event_id)"
    ((organization, event_id, position, inbox),) = fetch(live, f"{statement} ORDER BY a OFFSET 7 LIMIT 1")
    execute(live, "DELETE FROM acks WHERE organization = %s AND event_id = %s", organization, event_id)
    unacked = "INSERT INTO unacked SELECT organization, mode, generation, position, event_id, type FROM inbox"
    unacked += " WHERE organization = %s AND event_id = %s"
    assert execute(live, unacked, organization, event_id) == 1
    assert found(live) == {
        ("acks", "missing", event_id, INBOX_ACKS, position, ()),
        ("unacked", "unknown", event_id, EVENTS_ACCEPTED, inbox, ()),
    }


def test_a_fold_that_asks_for_the_time_is_found_out(tables: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = acks.fold

    def with_now(records: Iterable[Any]) -> list[acks.Row]:
        return [row._replace(acked_at_ms=time.time_ns() // 1_000) for row in straight(records)]

    monkeypatch.setattr(acks, "fold", with_now)
    fold_live(tables)
    report = rebuild(tables)
    assert not report.equal
    assert not report.swapped
    (told,) = [table for table in report.tables if table.differences]
    assert told.table == "acks"
    assert told.differences == told.rows > LISTED_MAX == len(told.listed)
    assert {one.columns for one in told.listed} == {("acked_at_ms",)}


def test_an_ack_that_is_ahead_of_its_fold_without_a_record_is_told(live: Settings) -> None:
    event_id = row_of(live, "unacked")[2]
    insert = "INSERT INTO acks SELECT organization, mode, event_id, partition, 1000000, 1 FROM inbox WHERE event_id = %s"
    assert execute(live, insert, event_id) == 1
    report = rebuild(live)
    assert [(one.event_id, one.position) for one in report.unfounded] == [(event_id, 1_000_000)]
    assert not report.swapped


def test_a_highest_ingested_offset_that_differs_is_told(live: Settings) -> None:
    assert (
        execute(live, "UPDATE projection_offsets SET ingested_high = ingested_high + 1 WHERE topic = %s AND partition = 0", EVENTS_ACCEPTED)
        == 1
    )
    report = rebuild(live)
    assert list(report.highs) == [(EVENTS_ACCEPTED, 0)]
    assert not report.swapped


def test_accepted_a_difference_goes_and_what_the_log_says_is_live(live: Settings) -> None:
    before = sums(live)
    execute(live, "DELETE FROM inbox WHERE position %% 3 = 0")
    execute(live, "UPDATE projection_offsets SET ingested_high = ingested_high + 1 WHERE topic = %s", EVENTS_ACCEPTED)
    damaged = sums(live)
    report = rebuild(live, accept=True, old_schema="folds_old_test")
    assert not report.equal
    assert report.swapped
    assert sums(live) == before
    kept = {row[0] for row in fetch(live, "SELECT tablename FROM pg_tables WHERE schemaname = 'folds_old_test'")}
    assert kept == set(before) - {"projection_offsets"}
    assert damaged["inbox"] != before["inbox"]
    audited = fetch(live, "SELECT action, target, detail->'differences' FROM control.audit_log")
    assert audited == [("projections.swapped", "all", {"inbox": next(one.differences for one in report.tables if one.table == "inbox")})]
