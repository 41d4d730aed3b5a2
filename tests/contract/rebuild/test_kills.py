"""Killed anywhere, a rebuild changes nothing or everything, and goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from projections import swap
from runtime.settings import Settings
from tests.backends import Servers
from tests.conftest import TEST_ENVIRONMENT
from tests.contract.rebuild.rig import execute, fetch, fold_live, rebuild, sums
from triggers.system import argv, until

#: In this order one after the other, in one database: each run goes on where the one before was killed.
PLACES = [
    "rebuild.in_load:2", "rebuild.after_load:2", "rebuild.in_finish:1", "rebuild.after_finish:1", "rebuild.compared:1", "rebuild.locked:1",
    "rebuild.in_swap:1",
]  # fmt: skip


def environment_of(settings: Settings, servers: Servers) -> dict[str, str]:
    return {
        **servers.environment,
        **TEST_ENVIRONMENT,
        "PATH": "/usr/bin:/bin",
        "TRIGGERS_POSTGRES__DSN": settings.postgres.dsn.get_secret_value(),
        "TRIGGERS_REBUILD__BATCH_RECORDS_MAX": "1000",
    }


def begin(settings: Settings, servers: Servers, *, place: str | None, folder: Path) -> subprocess.Popen[str]:
    armed = folder / "crash"
    armed.write_text(place or "")
    environment = {**environment_of(settings, servers), "TRIGGERS_CRASH_FILE": str(armed)}
    command = argv("rebuild", "all", "--json")
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.verify
@pytest.mark.timeout(300)
def test_killed_at_any_placed_point_the_live_tables_are_whole_and_the_next_run_goes_on(
    tables: Settings, own_servers: Servers, tmp_path: Path
) -> None:
    fold_live(tables, share=0.9)
    before = sums(tables)
    stood = 0
    for place in PLACES:
        process = begin(tables, own_servers, place=place, folder=tmp_path)
        output = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (place, output)
        assert sums(tables) == before, place
        ((stands,),) = fetch(tables, "SELECT sum(next_offset) FROM folds_shadow.projection_offsets")
        assert stands >= stood, place
        stood = int(stands)
    assert stood > 0
    process = begin(tables, own_servers, place="rebuild.after_swap:1", folder=tmp_path)
    output = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    assert sums(tables) == before
    assert fetch(tables, "SELECT to_regnamespace('folds_shadow')") == [(None,)]
    fold_live(tables)
    whole = sums(tables)
    assert rebuild(tables).swapped
    assert sums(tables) == whole


@pytest.mark.timeout(180)
def test_killed_while_it_folds_what_came_after_the_load_it_goes_on_behind_what_it_folded(
    tables: Settings, own_servers: Servers, tmp_path: Path
) -> None:
    standing = "SELECT sum(next_offset) FROM folds_shadow.projection_offsets"
    stood = []
    for share, place in ((0.5, "rebuild.compared:1"), (1.0, "rebuild.after_fold:2")):
        fold_live(tables, share=share)
        before = sums(tables)
        process = begin(tables, own_servers, place=place, folder=tmp_path)
        output = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (place, output)
        assert sums(tables) == before
        stood.append(int(fetch(tables, standing)[0][0]))
    whole = int(fetch(tables, "SELECT sum(next_offset) FROM projection_offsets")[0][0])
    assert stood[0] < stood[1] < whole  # in the middle of what came
    report = rebuild(tables)
    assert report.resumed
    assert report.swapped
    assert report.records == whole - stood[1]  # nothing is read again
    assert sums(tables) == before


def test_postgres_killed_during_the_swap_leaves_the_old_tables(
    live: Settings, own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own_servers.stack is None:
        pytest.skip("servers in containers are not ours to kill")
    postgres = own_servers.stack.postgres
    execute(live, "DELETE FROM inbox WHERE position %% 2 = 0")
    before = sums(live)

    def kill(place: str) -> None:
        if place == "rebuild.in_swap":
            postgres.kill()

    monkeypatch.setattr(swap, "reach", kill)
    try:
        with pytest.raises(psycopg.OperationalError):
            rebuild(live, accept=True)
    finally:
        monkeypatch.undo()
        postgres.bring_up()
    assert sums(live) == before
    report = rebuild(live, accept=True)
    assert report.resumed
    assert report.swapped
    assert sums(live) != before
    assert rebuild(live, verify_only=True).equal


def test_a_second_rebuild_at_the_same_time_is_refused(live: Settings, own_servers: Servers, tmp_path: Path) -> None:
    with psycopg.connect(live.postgres.dsn.get_secret_value()) as reader:
        reader.execute("SELECT FROM folds.inbox")  # the first one waits for the tables
        first = begin(live, own_servers, place=None, folder=tmp_path)
        try:
            locks = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 1919246948"
            until(lambda: len(fetch(live, locks)) == 1, 60, "the first rebuild owning the shadow")
            second = begin(live, own_servers, place=None, folder=tmp_path)
            output, error = second.communicate(timeout=60)
            assert (second.returncode, output) == (1, "")
            assert "another rebuild is running" in error
            assert first.poll() is None
        finally:
            reader.rollback()
            first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.verify
@pytest.mark.timeout(900)
def test_killed_at_any_moment_nothing_is_lost(tables: Settings, own_servers: Servers, tmp_path: Path) -> None:
    chosen = random.Random(int(os.environ.get("SEED") or 1))
    fold_live(tables)
    before = sums(tables)
    for _ in range(20):
        process = begin(tables, own_servers, place=None, folder=tmp_path)
        time.sleep(chosen.uniform(0.5, 6))  # the fault itself: a moment that nothing chose
        process.kill()
        process.communicate(timeout=60)
        assert sums(tables) == before
    assert rebuild(tables).swapped
    assert sums(tables) == before
