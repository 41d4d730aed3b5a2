from __future__ import annotations

import getpass

import pytest

from access.audit import command_line_actor


def test_the_actor_of_the_command_line_is_the_user_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert command_line_actor() == "cli:ada"


@pytest.mark.parametrize("error", [KeyError("uid not found: 1234"), OSError("No username set in the environment")])
def test_a_user_without_a_name_can_still_work(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert command_line_actor() == "cli:unknown"
