from __future__ import annotations

import os
from pathlib import Path

import pytest

from triggers.devstack import unprivileged
from triggers.devstack.unprivileged import ORPHANS_KEPT_S, data_folder, open_to_others, remove, sweep

OURSELVES = (os.getuid(), os.getgid())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "closed" / "state"
    made.mkdir(parents=True)
    made.parent.chmod(0o700)
    return made


def test_an_ordinary_users_data_lies_in_the_state_folder(home: Path, tmp_path: Path) -> None:
    assert data_folder(home, None, tmp_path / "elsewhere") == home / "data"


def test_data_behind_a_closed_folder_lies_elsewhere_and_is_found_again(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    made = data_folder(home, OURSELVES, elsewhere)
    assert made.parent.parent == elsewhere
    assert data_folder(home, OURSELVES, elsewhere) == made


def test_a_reachable_state_folder_keeps_its_data(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unprivileged, "open_to_others", lambda _: True)
    assert data_folder(home, OURSELVES, tmp_path / "elsewhere") == home / "data"


def test_every_folder_on_the_way_counts(home: Path) -> None:
    assert not open_to_others(home)
    assert open_to_others(Path("/"))


def test_a_moved_state_folder_keeps_its_data(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    made = data_folder(home, OURSELVES, elsewhere)
    moved = home.rename(home.with_name("moved"))
    assert data_folder(moved, OURSELVES, elsewhere) == made
    used = (made.parent / "origin").stat().st_mtime
    sweep(elsewhere, used + ORPHANS_KEPT_S + 1)
    assert made.parent.is_dir()


def test_data_without_a_state_folder_goes_after_a_week(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    made = data_folder(home, OURSELVES, elsewhere)
    used = (made.parent / "origin").stat().st_mtime
    (home / "location").unlink()
    sweep(elsewhere, used + ORPHANS_KEPT_S - 1)
    assert made.parent.is_dir()
    sweep(elsewhere, used + ORPHANS_KEPT_S + 1)
    assert not made.parent.exists()


def test_removing_a_state_folder_takes_its_data_along(home: Path, tmp_path: Path) -> None:
    made = data_folder(home, OURSELVES, tmp_path / "elsewhere")
    remove(home)
    assert not made.parent.exists()
    remove(home)
