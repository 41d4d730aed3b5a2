from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from triggers.devstack.postgres import Postgres, command_line, is_postmaster, parse_postmaster_pid


@pytest.mark.parametrize(("text", "pid"), [("123\n/data\n", 123), ("-123\n", 123), ("", None), ("\n", None), ("0\n", None), ("x\n", None)])
def test_the_pid_of_a_lock_is_read_or_there_is_none(text: str, pid: int | None) -> None:
    assert parse_postmaster_pid(text) == pid


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["/x/bin/postgres", "-D", "/data", "-c", "port=1"], True),
        (["/x/bin/postgres", "-D", "/data2"], False),
        (["postgres: checkpointer "], False),
        (["/usr/bin/vim", "/data"], False),
        ([], False),
    ],
)
def test_only_a_server_on_the_same_data_is_a_leftover(command: list[str], ours: bool) -> None:
    assert is_postmaster(command, Path("/data")) is ours


def test_the_command_of_a_live_process_is_seen() -> None:
    assert command_line(os.getpid())[0] == sys.orig_argv[0]


@pytest.mark.parametrize("depth", [1, 12])
def test_the_socket_path_is_short_and_stays_the_same(tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path.joinpath(*["deeper-and-deeper"] * depth)
    home.mkdir(parents=True)
    monkeypatch.setattr("triggers.devstack.unprivileged.user", lambda: None)
    folders = {Postgres(home, port=1, password="p", progress=print).socket_folder for _ in range(2)}
    assert len(folders) == 1
    assert len(os.fsencode(folders.pop() / ".s.PGSQL.65535.lock")) <= 104


def test_a_lock_naming_another_process_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triggers.devstack.unprivileged.user", lambda: None)
    postgres = Postgres(tmp_path, port=1, password="p", progress=print)
    lock = tmp_path / "data" / "postmaster.pid"
    lock.parent.mkdir()
    lock.write_text(f"{os.getpid()}\n{tmp_path}/data\n")
    postgres.end_leftover()
    assert not lock.exists()
