"""A rebuild gives the bytes that live folding gave, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from projections.folds import FOLDS, TARGETS, tables_of
from projections.log_reader import bounds
from runtime.postgres import connect
from runtime.settings import Settings
from tests.backends import start_servers
from tests.conftest import TEST_ENVIRONMENT
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import fetch, fold_live, places, rebuild, straight, sums
from tests.contract.rebuild.traffic import Traffic
from triggers.system import PROCESSES, System, until

CONSTRAINTS = (
    "SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'folds'::regnamespace ORDER BY 1, 2"
)


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
    keys = fetch(tables, CONSTRAINTS)
    for target in ("all", "inbox", "attempts", "all"):
        report = rebuild(tables, target)
        assert report.equal
        assert report.swapped
        assert sums(tables) == before
    assert fetch(tables, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'folds' ORDER BY 1") == indexes
    assert fetch(tables, CONSTRAINTS) == keys
    assert {kind for _, _, kind, _ in keys} > {"p", "u"}
    assert fetch(tables, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'folds%%'") == [("folds",)]


def test_an_event_with_a_second_accepted_record_keeps_its_first_position(tables: Settings, corpus: Corpus) -> None:
    """Which a unique key of the inbox refuses; `unacked` has it once, and its last position is known to be nobody's."""
    event_id = corpus.accept_twice()
    fold_live(tables)
    before = sums(tables)
    ((lost,),) = fetch(tables, "SELECT position FROM removed WHERE event_id = %s", event_id)
    assert fetch(tables, "SELECT position < %s FROM inbox JOIN unacked USING (position, event_id) WHERE event_id = %s", lost, event_id) == [
        (True,)
    ]
    for target in ("inbox", "all"):
        report = rebuild(tables, target)
        assert report.equal, report.tables
        assert report.swapped
        assert sums(tables) == before


def test_rows_that_lost_are_found_whatever_way_the_log_was_cut_into_loads(tables: Settings) -> None:
    fold_live(tables)
    before = sums(tables)
    for size in (97, 1_511):
        cut = tables.model_copy(update={"rebuild": tables.rebuild.model_copy(update={"batch_records_max": size})})
        assert rebuild(cut, "attempts").swapped
        assert sums(tables) == before


@pytest.mark.verify
@pytest.mark.timeout(1_800)
def test_a_hundred_thousand_events_of_fifty_organizations_are_the_same_bytes(tmp_path: Path) -> None:
    """Folded live by the real worker, rebuilt twice at rest and once while more come in."""
    with start_servers(tmp_path / "servers") as servers:
        ours = {"PATH": "/usr/bin:/bin", "TRIGGERS_PROCESSOR__DATA_DIR": str(tmp_path / "data")}
        environment = {**servers.environment, **TEST_ENVIRONMENT, **ours}
        system = System(environment, tmp_path / "logs", announce=lambda line: print(line, flush=True))
        system.prepare()
        corpus = Corpus(system.settings, organizations=50)
        corpus.produce(100_000)
        system.start_process("project", PROCESSES["project"])
        try:
            until(lambda: folded(system.settings), 600, "the worker folding the whole log", 1)
            before = sums(system.settings)
            for _ in range(2):
                report = rebuild(system.settings)
                assert report.equal
                assert report.swapped
                assert sums(system.settings) == before
            with Traffic(system.settings, corpus).running("produce", "ack") as traffic:
                traffic.more("produce")
                assert rebuild(system.settings).swapped
                traffic.more("produce")
            until(lambda: folded(system.settings), 600, "the worker folding what came meanwhile", 1)
            assert sums(system.settings) == straight(system.settings)
            assert rebuild(system.settings, verify_only=True).equal
        finally:
            system.stop()


def folded(settings: Settings) -> bool:
    """Whether the live folds stand at the end of the log."""
    rows = fetch(settings, "SELECT topic, partition, next_offset FROM projection_offsets")
    stands = {(str(topic), int(number)): int(offset) for topic, number, offset in rows}
    return {place: part.end for place, part in bounds(settings.kafka, places(settings)).items()} == stands
