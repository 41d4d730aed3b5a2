"""A rebuild beside live folds, producers, acks and readers."""

from __future__ import annotations

import threading

import pytest

from runtime.postgres import connect
from runtime.settings import Settings
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import execute, fetch, fold_live, rebuild, straight, sums
from tests.contract.rebuild.traffic import Traffic, ack_as_the_api
from triggers.system import until


@pytest.mark.verify
@pytest.mark.timeout(240)
def test_rebuilt_during_traffic_nothing_is_lost_repeated_or_different(tables: Settings, corpus: Corpus) -> None:
    fold_live(tables, share=0.5)
    with Traffic(tables, corpus).running("produce", "fold", "ack") as traffic:
        for kind in traffic.done.keys() - {"read"}:
            traffic.more(kind)
        for target in ("all", "inbox"):
            report = rebuild(tables, target)
            assert report.equal, report.tables
            assert report.swapped
            traffic.more("fold")
            traffic.more("ack")
    fold_live(tables)
    assert sums(tables) == straight(tables)


def test_acks_ahead_of_a_fold_that_stands_still_are_kept(tables: Settings, corpus: Corpus) -> None:
    fold_live(tables)
    for row in fetch(tables, "SELECT organization, mode, event_id FROM unacked ORDER BY event_id LIMIT 5"):
        ack_as_the_api(tables, *map(str, row))
    before = sums(tables)
    report = rebuild(tables)
    assert report.equal
    assert (report.swapped, report.acks_ahead) == (True, 5)
    assert sums(tables) == before
    fold_live(tables)
    assert sums(tables) == straight(tables)


def test_a_reader_sees_the_old_tables_or_the_new_ones_and_never_a_mixture(live: Settings) -> None:
    execute(live, "DELETE FROM inbox WHERE position %% 2 = 0")
    execute(live, "DELETE FROM acks WHERE position %% 2 = 0")
    both = "SELECT count(*) FROM inbox JOIN acks USING (organization, event_id)"
    look = f"SELECT (SELECT count(*) FROM inbox), (SELECT count(*) FROM acks), ({both})"
    (old,) = fetch(live, look)
    seen: set[tuple[int, ...]] = set()
    stop, looks = threading.Event(), [0, 0]

    def read(number: int) -> None:
        with connect(live.postgres, search_path="folds", application="test") as connection:
            connection.autocommit = True
            while not stop.is_set():
                row = connection.execute(look).fetchone()
                assert row is not None
                seen.add(tuple(row))
                looks[number] += 1

    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        until(lambda: min(looks) > 5, 30, "readers reading")  # by then their statement is a prepared one
        assert rebuild(live, accept=True).swapped
        begun = list(looks)
        until(lambda: min(looks[0] - begun[0], looks[1] - begun[1]) > 5, 30, "readers reading on")
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    (new,) = fetch(live, look)
    assert new != old
    assert seen == {old, new}


def test_a_reader_that_stays_in_its_transaction_holds_the_swap_up_and_is_not_disturbed(live: Settings) -> None:
    execute(live, "DELETE FROM inbox WHERE position %% 2 = 0")
    impatient = live.model_copy(update={"rebuild": live.rebuild.model_copy(update={"swap_timeout_s": 1.0})})
    with connect(live.postgres, search_path="folds", application="test") as reader:
        (before,) = reader.execute("SELECT count(*) FROM inbox").fetchall()
        with pytest.raises(RuntimeError, match="could not be exchanged within 1 s"):
            rebuild(impatient, accept=True)
        assert reader.execute("SELECT count(*) FROM inbox").fetchall() == [before]
    assert rebuild(impatient, accept=True).swapped
    assert fetch(live, "SELECT count(*) FROM inbox") != [before]


@pytest.mark.verify
def test_a_live_fold_that_is_far_ahead_is_caught_up_with_before_the_swap(tables: Settings) -> None:
    fold_live(tables, share=0.3)
    few = tables.model_copy(update={"rebuild": tables.rebuild.model_copy(update={"swap_records_max": 1})})
    assert rebuild(few, verify_only=True).equal
    execute(tables, "DELETE FROM acks WHERE position = 0")
    assert not rebuild(few).equal  # the shadow stays where it is
    fold_live(tables)
    report = rebuild(few, accept=True)
    assert report.resumed
    assert report.swapped
    assert sums(tables) == straight(tables)
