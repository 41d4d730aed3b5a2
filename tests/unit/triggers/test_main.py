from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from triggers import commands
from triggers.cli import app
from triggers.main import COMMANDS, app_for

#: Libraries that take long to import or much to keep, and the commands that cannot do without one of them.
HEAVY = ["fastapi", "sqlalchemy", "alembic", "jsonschema_rs"]
NEEDING = {"migrate", "openapi", "rebuild", "doctor", "backup", "restore", "topics", "event-type"}


def named(application: Any) -> dict[str, Any]:
    return dict(get_command(application).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_by_itself_is_what_it_is_in_the_whole_command_line_and_imports_no_library_of_others(command: str) -> None:
    """By itself in a process that imports nothing else, or the whole one would have made it complete."""
    code = (
        "import json, sys; from typer.main import get_command; from triggers.main import app_for; "
        f"found = get_command(app_for({command!r})).commands[{command!r}]; "
        "described = [sorted(getattr(found, 'commands', {})), [one.name for one in found.params], found.help]; "
        f"print(json.dumps([described, [m for m in {HEAVY} if m in sys.modules]]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    described, heavy = json.loads(found.stdout)
    whole = named(app)[command]
    assert described == [sorted(getattr(whole, "commands", {})), [one.name for one in whole.params], whole.help]
    assert command in NEEDING or heavy == []


def test_every_command_is_in_the_table_and_every_module_of_commands_is_used() -> None:
    assert named(app).keys() == COMMANDS.keys()
    used = {name for modules in COMMANDS.values() for name in modules}
    registering = {path.stem for path in Path(commands.__path__[0]).glob("*.py") if "\ndef register(" in path.read_text()}
    assert registering <= used


@pytest.mark.parametrize("command", ["--help", None, "no-such-command"])
def test_everything_else_gets_the_whole_command_line(command: str | None) -> None:
    assert named(app_for(command)).keys() == COMMANDS.keys()
