"""Rows of the control plane that name places of the log: replays. As `COPY` wrote them, line by line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from schemas.ids import OrganizationId
from schemas.topics import EVENTS_ACCEPTED, EVENTS_INGESTED
from triggers.backup import files
from triggers.backup.manifest import Manifest, Table
from triggers.grow.values import Move

_REPLAYS: Final = "replays"
_ENDPOINTS: Final = "replay_endpoints"
Row = dict[str, bytes]


def rewrite(move: Move, before: Path, after: Path, made: Manifest) -> list[Table]:
    """Every table, with the positions of replays mapped. Raises `triggers.backup.manifest.Damaged`, `OSError`."""
    whose: dict[bytes, OrganizationId] = {}

    def replay(row: Row) -> None:
        whose[row["id"]] = OrganizationId(row["organization"].decode())
        for name in ("from_position", "until_position"):
            row[name] = b"%d" % move.not_below(EVENTS_ACCEPTED, whose[row["id"]], int(row[name]))

    def endpoint(row: Row) -> None:
        organization = whose[row["replay"]]
        row["next_position"] = b"%d" % move.not_below(EVENTS_ACCEPTED, organization, int(row["next_position"]))
        row["ingested_high"] = b"%d" % move.not_above(EVENTS_INGESTED, organization, int(row["ingested_high"]))

    changes = {_REPLAYS: replay, _ENDPOINTS: endpoint}
    found = {}
    for table in sorted(
        made.tables, key=lambda one: one.table != _REPLAYS
    ):  # replays first: their endpoints' rows do not say whose they are
        change = changes.get(table.table)
        found[table.table] = _copied(before, after, table) if change is None else _changed(before, after, table, change)
    return [found[table.table] for table in made.tables]


def _copied(before: Path, after: Path, table: Table) -> Table:
    (after / table.name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(before / table.name, after / table.name)
    return table


def _changed(before: Path, after: Path, table: Table, change: Callable[[Row], None]) -> Table:
    with files.writing(after, table.name) as (file, made):
        for line in _lines(before, table):
            row = dict(zip(table.columns, line.split(b"\t"), strict=True))
            change(row)
            file.put(b"\t".join(row.values()) + b"\n")
    return Table(name=table.name, size=made.size, digest=made.digest, table=table.table, columns=table.columns, rows=table.rows)


def _lines(directory: Path, table: Table) -> Iterator[bytes]:
    """A tab or a line feed inside a value is written as two other characters."""
    rest = b""
    for block in files.blocks(directory, table):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
