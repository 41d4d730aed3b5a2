from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command

from triggers.cli import app
from triggers.commands import run
from triggers.main import PROCESSES, app_for

#: What no process but the API needs, and none would ever free.
HEAVY = ["fastapi", "sqlalchemy", "alembic", "jsonschema_rs"]


@pytest.mark.parametrize("command", sorted(PROCESSES))
def test_a_process_is_started_without_the_libraries_of_other_commands(command: str) -> None:
    code = (
        f"import json, sys; from triggers.main import app_for; app_for({command!r}); "
        f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_a_process_command_is_the_same_in_both_command_lines() -> None:
    whole = get_command(app).commands  # type: ignore[attr-defined]
    for command in PROCESSES:
        lean = get_command(app_for(command)).commands  # type: ignore[attr-defined]
        assert lean[command].callback.__wrapped__ is whole[command].callback.__wrapped__ is getattr(run, command)


@pytest.mark.parametrize("command", ["org", "--help", None])
def test_everything_else_gets_the_whole_command_line(command: str | None) -> None:
    assert app_for(command) is app
