"""What commands say when something is wrong."""

from __future__ import annotations

import pytest
import typer

from triggers.commands.output import explained, fail


def test_what_a_command_has_said_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), explained():
        raise fail("one line")
    assert capsys.readouterr().err == "triggers: one line\n"


def test_an_error_of_several_lines_is_told_on_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, explained():
        raise RuntimeError("first\n\tsecond\n")
    assert raised.value.exit_code == 1
    assert capsys.readouterr().err == "triggers: first second\n"
