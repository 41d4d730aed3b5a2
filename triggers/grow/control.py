"""Tables of the control plane, as `COPY` wrote them: rows that name places of the log (replays), and whether rows are still the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from schemas.ids import OrganizationId
from schemas.topics import EVENTS_ACCEPTED, EVENTS_INGESTED
from triggers.backup import files
from triggers.backup.manifest import Manifest, Table
from triggers.grow.values import Move

_REPLAYS: Final = "replays"
_ENDPOINTS: Final = "replay_endpoints"
_SUM_BELOW: Final = 1 << 256
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
        for line in lines(files.blocks(before, table)):
            row = dict(zip(table.columns, line.split(b"\t"), strict=True))
            change(row)
            file.put(b"\t".join(row.values()) + b"\n")
    return Table(name=table.name, size=made.size, digest=made.digest, table=table.table, columns=table.columns, rows=table.rows)


def lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A tab or a line feed inside a value is written as two other characters."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole


def rows_sum(rows: Iterable[bytes]) -> tuple[int, int]:
    """How many, and a sum that no order of them changes."""
    count = total = 0
    for row in rows:
        count, total = count + 1, (total + int.from_bytes(sha256(row).digest())) % _SUM_BELOW
    return count, total
