"""What every line of a process's log must be."""

from __future__ import annotations

import json
from pathlib import Path

_FIELDS = ("event", "process", "pid", "level", "timestamp")


def lines(path: Path) -> list[dict[str, object]]:
    """The log's lines; a last one that is still being written, or was cut off by kill -9, is left out."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def bad_lines(path: Path) -> list[str]:
    """What is not a JSON line of ours, and every exception that nobody caught."""
    bad: list[str] = []
    for line in path.read_text(errors="replace").split("\n")[:-1]:
        try:
            told = json.loads(line)
            missing = [name for name in _FIELDS if name not in told]
        except (ValueError, TypeError):
            bad.append(f"{path.name}: not a JSON line: {line[:300]}")
            continue
        if missing:
            bad.append(f"{path.name}: a line without {', '.join(missing)}: {line[:300]}")
        if "Traceback" in line or "never retrieved" in line:
            bad.append(f"{path.name}: an exception nobody caught: {line[:1500]}")
    return bad
