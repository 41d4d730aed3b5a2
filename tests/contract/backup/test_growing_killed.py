"""`triggers topics grow` killed at every place in it, and given up: the same command goes on, and nobody reads a mixture."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from runtime import topics
from runtime.clock import SYSTEM
from runtime.postgres import RESTORING_SCHEMA, connect
from runtime.settings import Settings
from runtime.topics import TopicMismatch
from schemas.topics import DEDUP_APP, EVENTS_INGESTED, GROWING, RESTORING
from tests import runbooks
from tests.contract.backup.growing import append, commit, marks, read, told, waits
from tests.contract.backup.rig import quiet
from tests.contract.backup.test_backup import command, environment_of
from tests.contract.rebuild.rig import execute, fetch, rebuild
from tests.grown_log import NEW, OLD
from triggers.grow.move import give_up, grow, with_partitions
from triggers.grow.rewrite import NotReady
from triggers.processes import wait_for_kafka
from triggers.system import until

#: Where the command is killed, and whether what was there is replaced by then.
PLACES = {
    "grow.marked": False,
    "backup.after_segment:3": False,
    "grow.saved": False,
    "grow.rewritten": False,
    "grow.replacing": False,
    "grow.no_tables": True,
    "grow.no_topics": True,
    "grow.emptied": True,
    "restore.marked": True,
    "restore.after_partition:9": True,
    "restore.after_control": True,
    "restore.after_folds": True,
    "restore.before_end": True,
}

pytestmark = [pytest.mark.verify, pytest.mark.timeout(600)]


def test_killed_anywhere_the_same_command_goes_on_and_nobody_reads_a_mixture(small: Settings, tmp_path: Path) -> None:
    before, crash, directory = told(small), tmp_path / "crash", tmp_path / "move"
    arguments = ("topics", "grow", directory, "--partitions", str(NEW), "--json")
    for place, replaced in PLACES.items():
        crash.write_text(place)
        killed = command(small, *arguments, crash=crash)
        assert killed.returncode == -9, (place, killed.stderr)
        assert not crash.exists(), place
        assert "a restore is not done" in waits(small), place
        with pytest.raises(TopicMismatch, match="is not done"):  # topics of the old number would be in the way
            topics.ensure(small.kafka, small.delivery.delays_s)
        found = read(small)
        # Whole before, whole after; between them nobody is let in.
        assert found == before.inbox if not replaced or place == "restore.before_end" else found is None, place
        given_up = command(small, "topics", "grow", directory, "--give-up") if replaced else None
        assert given_up is None or (given_up.returncode == 1 and "too late" in given_up.stderr), place
    crash.write_text("grow.restored")
    assert command(small, *arguments, crash=crash).returncode == -9
    grown = with_partitions(small, NEW)
    assert (waits(grown), read(grown)) == ("", before.inbox)
    execute(grown, "UPDATE inbox SET type = type || 'x' WHERE position = 7")
    assert "the inbox had" in command(small, *arguments).stderr
    execute(grown, "UPDATE inbox SET type = left(type, -1) WHERE position = 7")
    done = command(small, *arguments)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["generation"], json.loads(done.stdout)["resumed"]) == (2, True)
    assert told(grown) == before
    assert rebuild(grown, verify_only=True).equal
    assert marks(grown) == []


@pytest.mark.parametrize("place", ["grow.saved", "grow.replacing"])
def test_a_move_that_was_killed_is_given_up_as_if_it_had_not_been_begun_and_begun_again(
    place: str, small: Settings, tmp_path: Path
) -> None:
    before, crash, directory = told(small), tmp_path / "crash", tmp_path / "move"
    crash.write_text(place)
    assert command(small, "topics", "grow", directory, "--partitions", str(NEW), crash=crash).returncode == -9
    assert append(small) is not None
    done = command(small, "topics", "grow", directory, "--give-up")
    assert done.returncode == 0, done.stderr
    assert (waits(small), marks(small), told(small)) == ("", [], before)
    assert append(small) is None
    ends = topics.ends(topics.admin(small.kafka), [(EVENTS_INGESTED, n) for n in range(OLD)])
    commit(small, DEDUP_APP, *(TopicPartition(topic, n, end) for (topic, n), end in ends.items()))
    assert command(small, "topics", "grow", directory, "--partitions", str(NEW + 1)).returncode == 0
    grown = told(with_partitions(small, NEW + 1))
    assert grown.inbox == before.inbox
    assert len(grown.records) == len(before.records) + 1


def test_a_commit_that_a_killed_command_left_under_way_is_waited_for_before_giving_up(small: Settings, tmp_path: Path) -> None:
    """Topics that took records again, beside tables that go away all the same, would be the worst of both."""
    crash, directory = tmp_path / "crash", tmp_path / "move"
    crash.write_text("grow.replacing")
    assert command(small, "topics", "grow", directory, "--partitions", str(NEW), crash=crash).returncode == -9
    mark = next(name.removeprefix(RESTORING) for name in marks(small) if not name.startswith(GROWING))
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'control.audit_log'::regclass"
    with ThreadPoolExecutor() as pool, connect(small.postgres, application="backup") as left:
        left.execute("LOCK TABLE control.audit_log IN ACCESS EXCLUSIVE MODE")
        left.execute(f"CREATE SCHEMA {RESTORING_SCHEMA}{mark}".encode())
        answer = pool.submit(give_up, small, directory)
        until(lambda: answer.done() or bool(fetch(small, waiting)), 20, "giving up coming to the tables")
        left.execute("DROP SCHEMA control CASCADE")
        left.commit()
        with pytest.raises(NotReady, match="too late"):
            answer.result()
    assert append(small) is not None
    assert len(marks(small)) == 2


def test_partitions_grow_again_and_again(small: Settings, tmp_path: Path) -> None:
    before = told(small)
    for generation, partitions in ((2, 3), (3, 11)):
        done = grow(small, tmp_path / str(partitions), partitions, SYSTEM, quiet)
        assert done.generation == generation
        grown = with_partitions(small, partitions)
        assert told(grown) == before
        assert wait_for_kafka(grown) == generation


@pytest.mark.parametrize("page", runbooks.GROWN)
def test_every_command_of_the_runbook_of_growing_prints_what_it_says(page: str, small: Settings, tmp_path: Path) -> None:
    environment = {**environment_of(small), "TRIGGERS_KAFKA__PARTITIONS": str(OLD), "MOVE": str(tmp_path / "move")}
    before = told(small)
    runbooks.run_page(page, environment, tmp_path)
    assert told(with_partitions(small, 12)) == before
