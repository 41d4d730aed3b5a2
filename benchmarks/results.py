"""What a benchmark found: one row a figure, on the terminal as a table and in `benchmarks/results/<scenario>.jsonl`.

A ratio of two figures of the same run counts; absolute figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

FOLDER: Final = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """`value` beside what `comparator` reached in the same run. `target` is the least `ratio` that is asked for, None where none is."""

    metric: str
    value: float
    unit: str
    comparator: str | None = None
    comparator_value: float | None = None
    target: float | None = None
    #: Whether a smaller ratio is the better one: latencies.
    less_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        return None if not self.comparator_value else self.value / self.comparator_value

    @property
    def met(self) -> bool | None:
        if self.ratio is None or self.target is None:
            return None
        return self.ratio <= self.target if self.less_is_better else self.ratio >= self.target


def report(scenario: str, figures: Sequence[Figure], note: str = "") -> None:
    """Print the table and append the rows."""
    FOLDER.mkdir(exist_ok=True)
    commit, at, machine = _commit(), datetime.now(UTC).isoformat(timespec="seconds"), _machine()
    with (FOLDER / f"{scenario}.jsonl").open("a") as out:
        for figure in figures:
            row = {"scenario": scenario, **asdict(figure), "ratio": figure.ratio, "met": figure.met}
            print(json.dumps({**row, "commit": commit, "machine": machine, "at": at}), file=out)
    print(f"\n{scenario}  ({machine}; {commit}){'  ' + note if note else ''}")
    width = max(len(figure.metric) for figure in figures)
    for figure in figures:
        line = f"  {figure.metric:<{width}}  {_number(figure.value):>10} {figure.unit:<9}"
        if figure.comparator is not None and figure.comparator_value is not None and figure.ratio is not None:
            line += f"  {figure.comparator}: {_number(figure.comparator_value)}  ratio {figure.ratio:.2f}"
        if figure.target is not None:
            line += f"  ({'at most' if figure.less_is_better else 'at least'} {figure.target:g}: {'met' if figure.met else 'MISSED'})"
        print(line)


def middle(values: Sequence[float]) -> float:
    """The median of several runs."""
    return float(median(values))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
