"""Rows to columns: `unnest` takes one array per column, in binary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def columns(names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Mapping[str, list[Any]]:
    """One list per name. Without rows, empty lists."""
    listed = list(rows)
    if not listed:
        return {name: [] for name in names}
    return dict(zip(names, map(list, zip(*listed, strict=True)), strict=True))
