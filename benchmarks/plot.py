"""The last row of each figure in `benchmarks/results` as one picture, `benchmarks/results/ratios.svg`: what was reached in multiples
of what was asked. Right of 1 is met. Run: `make bench BENCH=plot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

from benchmarks.results import FOLDER


def main() -> None:
    draw(last_rows(FOLDER), FOLDER / "ratios.svg")


def last_rows(folder: Path) -> list[dict[str, Any]]:
    """The newest row of every scenario and metric that something is asked of, in the order of the files."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            newest[row["scenario"], row["metric"]] = row
    return [row for row in newest.values() if row["target"] and row["ratio"]]


def margin(row: dict[str, Any]) -> float:
    """How often what was asked fits into what was reached, or the other way round where less is better."""
    ratio, target = float(row["ratio"]), float(row["target"])
    return target / ratio if row.get("less_is_better", (ratio <= target) == row["met"]) else ratio / target


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    chart = pygal.HorizontalBar(
        js=[],
        style=CleanStyle,
        show_legend=False,
        print_values=True,
        width=1000,
        height=140 + 34 * len(rows),
        value_formatter="{:.2f}".format,
        title="Reached, in multiples of what was asked",
    )
    chart.x_labels = [f"{row['scenario']}: {row['metric']} / {row['comparator']}" for row in reversed(rows)]
    chart.add("", [{"value": margin(row), "color": "#2a7f62" if row["met"] else "#b5483a"} for row in reversed(rows)])
    chart.render_to_file(str(path))


if __name__ == "__main__":
    main()
