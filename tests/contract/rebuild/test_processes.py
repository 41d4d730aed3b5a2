"""A load by several processes: the same bytes, and a process that dies costs what it had not committed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from projections import loaders
from projections.log_reader import Place, Range
from runtime.settings import Settings
from tests.backends import Servers
from tests.contract.rebuild.rig import fetch, fold_live, rebuild, sums
from tests.contract.rebuild.test_kills import environment_of
from triggers.system import argv, until


def with_two(settings: Settings) -> Settings:
    changed = {"processes": 2, "process_records_min": 1, "batch_records_max": 500}
    return settings.model_copy(update={"rebuild": settings.rebuild.model_copy(update=changed)})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Place]]:
    """Partitions that this process loads; it begins when the other one has loaded a batch."""
    loaded: list[Place] = []
    other = asyncio.Event()
    read, tell = loaders.Loaders._read, loaders._tell

    async def late(self: loaders.Loaders, ranges: Mapping[Place, Range], counted: loaders.Counted) -> None:
        if len(ranges) == 1:
            await other.wait()
            loaded.extend(ranges)
        await read(self, ranges, counted)

    async def seen(process: loaders.Other, place: Place, part: Range, counted: loaders.Counted) -> None:
        def told(records: int) -> None:
            other.set()
            counted(records)

        await tell(process, place, part, told)

    monkeypatch.setattr(loaders.Loaders, "_read", late)
    monkeypatch.setattr(loaders, "_tell", seen)
    yield loaded


def test_loaded_by_two_processes_the_tables_are_the_same_bytes(tables: Settings, here: list[Place]) -> None:
    fold_live(tables)
    before = sums(tables)
    report = rebuild(with_two(tables))
    assert report.swapped
    assert report.records == fetch(tables, "SELECT sum(next_offset) FROM projection_offsets")[0][0]
    assert sums(tables) == before
    assert 0 < len(here) < 3 * tables.kafka.partitions, "one process loaded every partition of accepted, acks and attempts"


def test_a_process_that_is_killed_ends_the_rebuild_and_the_next_run_goes_on(
    tables: Settings, here: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_live(tables)
    before = sums(tables)
    crash = tmp_path / "crash"
    crash.write_text("rebuild.in_load:2")
    monkeypatch.setenv("TRIGGERS_CRASH_FILE", str(crash))  # of the other process: this one has not read it
    with pytest.raises(RuntimeError, match="ended: run the same command again"):
        rebuild(with_two(tables))
    assert not crash.exists()
    assert sums(tables) == before
    report = rebuild(with_two(tables))
    assert report.resumed
    assert report.swapped
    assert sums(tables) == before


def children(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children(recursive=True) if "projections.loader" in one.cmdline()]


def test_killed_with_kill_9_no_process_of_it_stays(tables: Settings, own_servers: Servers) -> None:
    fold_live(tables)
    environment: dict[str, Any] = {
        **environment_of(tables, own_servers), "TRIGGERS_REBUILD__PROCESSES": "2", "TRIGGERS_REBUILD__PROCESS_RECORDS_MIN": "1",
    }  # fmt: skip
    process = subprocess.Popen(argv("rebuild", "all", "--json"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: bool(children(process.pid)) or process.poll() is not None, 60, "the other process")
    others = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert others
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in others), 30, "the other process ending")
    before = sums(tables)
    assert rebuild(tables).swapped
    assert sums(tables) == before
