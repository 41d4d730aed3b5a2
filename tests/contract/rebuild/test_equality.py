"""A rebuild gives the bytes that live folding gave, whatever happens meanwhile."""

from __future__ import annotations

from projections.folds import FOLDS, TARGETS, tables_of
from runtime.postgres import connect
from runtime.settings import Settings
from tests.contract.rebuild.rig import fetch, fold_live, rebuild, sums


def test_every_table_of_the_folds_is_declared_and_every_fold_can_be_rebuilt(tables: Settings) -> None:
    with connect(tables.postgres, application="test") as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'folds'").fetchall()
    assert {row[0] for row in rows} == {table.name for table in tables_of(FOLDS)} | {"projection_offsets"}
    assert {fold for folds in TARGETS.values() for fold in folds} == set(FOLDS)
    assert TARGETS["all"] == FOLDS


def test_rebuilt_twice_the_tables_are_the_same_bytes(tables: Settings) -> None:
    fold_live(tables)
    before = sums(tables)
    indexes = fetch(tables, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'folds' ORDER BY 1")
    for target in ("all", "inbox", "attempts", "all"):
        report = rebuild(tables, target)
        assert report.equal
        assert report.swapped
        assert sums(tables) == before
    assert fetch(tables, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'folds' ORDER BY 1") == indexes
    assert fetch(tables, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'folds%%'") == [("folds",)]
