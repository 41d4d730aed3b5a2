"""The folder of a move says how far it is, to one command at a time; and rows are the same or not, whatever their order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.backup.manifest import Damaged
from triggers.grow.control import lines, rows_sum
from triggers.grow.folder import State, opened
from triggers.grow.rewrite import NotReady

STATE = State(id="a1", old=4, new=12, phase="replacing", before="b", after="c", inbox=(3, "-17"))


def test_what_was_written_is_read_by_the_next_command(tmp_path: Path) -> None:
    with opened(tmp_path / "made" / "by" / "it") as folder:
        assert folder.read() is None
        folder.write(STATE)
        folder.clear_after()
        (folder.after / "half").touch()
    with opened(tmp_path / "made" / "by" / "it") as folder:
        assert folder.read() == STATE
        folder.clear_after()
        assert list(folder.after.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    with pytest.raises(NotReady, match=r"holds manifest.json: take an empty folder"), opened(tmp_path):
        pass


def test_a_second_command_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(NotReady, match="another command works in"), opened(tmp_path):
        pass


def test_a_state_that_cannot_be_read_is_never_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "move.json").write_text('{"id":')
    with opened(tmp_path) as folder, pytest.raises(Damaged, match=r"move.json cannot be read"):
        folder.read()


ROWS = st.lists(st.binary(max_size=3).filter(lambda row: b"\n" not in row), max_size=8)


@given(ROWS, st.integers(1, 5))
def test_rows_in_another_order_and_other_blocks_are_the_same(rows: list[bytes], size: int) -> None:
    text = b"".join(row + b"\n" for row in rows)
    assert list(lines(text[at : at + size] for at in range(0, len(text), size))) == rows
    shuffled = sorted(rows, reverse=True)
    assert rows_sum(shuffled) == rows_sum(rows)


@given(ROWS, ROWS)
def test_other_rows_are_not_the_same(ours: list[bytes], theirs: list[bytes]) -> None:
    assert (rows_sum(ours) == rows_sum(theirs)) == (sorted(ours) == sorted(theirs))
