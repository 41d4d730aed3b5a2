"""How far retention has come, for those who read or load: rows of events below an organization's mark are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from projections.fold import Connection, Rows
from runtime.sql import load

#: The lowest event id that stays, by organization and mode.
Marks = Mapping[tuple[str, str], str]

_PLACE: Final = ("organization", "mode", "generation", "partition", "position", "event_id")


async def marks(connection: Connection) -> Marks:
    """Of the schema in the connection's search path."""
    rows = await (await connection.execute(load("projections", "retention_marks"))).fetchall()
    return {(organization, mode): event_id for organization, mode, event_id in rows}


def split(rows: Rows, marks: Marks) -> tuple[Rows, Rows]:
    """Those that stay and those that retention has passed. Pure."""
    if not marks:
        return rows, Rows(rows.table, rows.columns, [])
    owner, mode, event = (rows.columns.index(name) for name in ("organization", "mode", "event_id"))
    stay: list[tuple[Any, ...]] = []
    gone: list[tuple[Any, ...]] = []
    for row in rows.rows:
        (gone if row[event] < marks.get((row[owner], row[mode]), "") else stay).append(row)
    return Rows(rows.table, rows.columns, stay), Rows(rows.table, rows.columns, gone)


async def leave_out(connection: Connection, found: Iterable[Rows], marks: Marks) -> list[Rows]:
    """What is to be loaded of `found`. Positions of the inbox that are left out are remembered, as the live fold does."""
    kept = []
    for rows in found:
        stay, gone = split(rows, marks)
        kept.append(stay)
        if gone.rows and rows.table == "inbox":
            places = [rows.columns.index(name) for name in _PLACE]
            values = {name: [row[place] for row in gone.rows] for name, place in zip(_PLACE, places, strict=True)}
            await connection.execute(load("projections", "note_removed"), values)
    return kept
