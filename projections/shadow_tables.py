"""Tables of the folds in another schema: made like the live ones, given the same keys and indexes under the same names, put in their place.

Names stay, because migrations name constraints and indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from psycopg import sql

from projections.fold import Connection
from runtime.postgres import FOLDS_SCHEMA
from runtime.sql import load

SHADOW_SCHEMA: Final = "folds_shadow"
OFFSETS_TABLE: Final = "projection_offsets"


def trusted(text: str) -> sql.SQL:
    """Text that came out of the catalogue as a statement or a part of one."""
    return sql.SQL(text)


async def describe(connection: Connection, schema: str, tables: Sequence[str]) -> str:
    """Columns, keys, indexes and storage options of some tables, as one text: the same for live and shadow."""
    values = {"schema": schema, "tables": list(tables)}
    columns = await (await connection.execute(load("projections", "shadow_columns"), values)).fetchall()
    indexes = await (await connection.execute(load("projections", "shadow_indexes"), values)).fetchall()
    listed = [(table, name, kind, _moved(definition, schema, "", table)) for table, name, kind, definition, *_ in indexes]
    return msgspec.json.encode([columns, listed]).decode()


async def column_types(connection: Connection, schema: str, tables: Sequence[str]) -> dict[tuple[str, str], int]:
    """The type number of each (table, column)."""
    values = {"schema": schema, "tables": list(tables)}
    rows = await (await connection.execute(load("projections", "shadow_columns"), values)).fetchall()
    return {(table, column): oid for table, column, oid, *_ in rows}


async def make_like_live(connection: Connection, tables: Sequence[str]) -> None:
    """Empty tables in the shadow schema, as the live ones are but for keys and indexes."""
    values = {"schema": FOLDS_SCHEMA, "tables": list(tables)}
    columns = await (await connection.execute(load("projections", "shadow_columns"), values)).fetchall()
    options = {row[0]: row[6] for row in columns}
    for table in tables:
        stored = sql.SQL(" WITH ({})").format(trusted(options[table])) if options[table] else sql.SQL("")
        await connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES){}").format(
                sql.Identifier(SHADOW_SCHEMA, table), sql.Identifier(FOLDS_SCHEMA, table), stored
            )
        )


class Index(NamedTuple):
    """An index of a shadow table. `statement` makes it; `attach`, where there is one, makes it the key of a constraint, at once."""

    table: str
    name: str
    unique: bool
    statement: sql.Composed
    attach: sql.Composed | None


async def indexes_of_live(connection: Connection, tables: Sequence[str]) -> list[Index]:
    """Keys first. They can be made side by side, but for constraints that do not rest on an index made before: those let nobody else in."""
    found = await connection.execute(load("projections", "shadow_indexes"), {"schema": FOLDS_SCHEMA, "tables": list(tables)})
    indexes = []
    for table, name, kind, definition, rests_on, primary in await found.fetchall():
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(sql.Identifier(SHADOW_SCHEMA, table), sql.Identifier(name))
        attach = None
        if kind == "index":
            statement = sql.Composed([trusted(_moved(definition, FOLDS_SCHEMA, SHADOW_SCHEMA, table))])
        elif rests_on is None:
            statement = add + trusted(definition)
        else:
            statement = sql.Composed([trusted(_moved(rests_on, FOLDS_SCHEMA, SHADOW_SCHEMA, table))])
            attach = add + sql.SQL("{} USING INDEX {}").format(sql.SQL("PRIMARY KEY" if primary else "UNIQUE"), sql.Identifier(name))
        unique = kind == "constraint" or definition.startswith("CREATE UNIQUE INDEX ")
        indexes.append(Index(table, name, unique, statement, attach))
    return indexes


async def make_indexes(connection: Connection, tables: Sequence[str]) -> None:
    """Keys and indexes of the live tables, on those of the shadow. Raises `psycopg.errors.UniqueViolation`."""
    for index in await indexes_of_live(connection, tables):
        await connection.execute(index.statement)
        if index.attach is not None:
            await connection.execute(index.attach)


async def drop_indexes(connection: Connection, tables: Sequence[str]) -> None:
    """Keys and indexes of shadow tables, whichever are there."""
    found = await connection.execute(load("projections", "shadow_indexes"), {"schema": SHADOW_SCHEMA, "tables": list(tables)})
    for table, name, kind, *_ in await found.fetchall():
        if kind == "constraint":
            statement = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(sql.Identifier(SHADOW_SCHEMA, table), sql.Identifier(name))
        else:
            statement = sql.SQL("DROP INDEX {}").format(sql.Identifier(SHADOW_SCHEMA, name))
        await connection.execute(statement)


def _moved(definition: str, old: str, new: str, table: str) -> str:
    """`CREATE INDEX … ON <schema>.<table> USING …` for a table of the same name elsewhere. Index names have no schema there."""
    return definition.replace(f" ON {old}.{table} ", f" ON {new}.{table} ", 1)


async def put_in_place(connection: Connection, tables: Sequence[str], old_schema: str | None) -> None:
    """The shadow's tables become the live ones; those go to `old_schema`, or away. The caller holds them locked, in a transaction."""
    values = {"schema": FOLDS_SCHEMA, "tables": list(tables)}
    grants = await (await connection.execute(load("projections", "shadow_grants"), values)).fetchall()
    if old_schema is not None:
        await connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(old_schema)))
    for table in tables:
        live, shadow = sql.Identifier(FOLDS_SCHEMA, table), sql.Identifier(SHADOW_SCHEMA, table)
        if old_schema is None:
            await connection.execute(sql.SQL("DROP TABLE {}").format(live))
        else:
            await connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(live, sql.Identifier(old_schema)))
        await connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(shadow, sql.Identifier(FOLDS_SCHEMA)))
    for table, owner, grantee, privilege in grants:
        live = sql.Identifier(FOLDS_SCHEMA, table)
        await connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(live, sql.Identifier(owner)))
        if privilege is not None:
            whom = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
            await connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(trusted(privilege), live, whom))
