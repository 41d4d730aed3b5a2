"""The control plane as files and back: each table by COPY, all of them in one snapshot. Secrets stay encrypted as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from psycopg import Connection, IsolationLevel, sql

from projections.shadow_tables import SHADOW_SCHEMA
from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, connection_arguments
from runtime.settings import PostgresSettings
from runtime.sql import load
from triggers.backup.files import blocks, writing
from triggers.backup.manifest import Damaged, Manifest, Table

_FOLDER: Final = "control"


class Control:
    """What a backup needs to know of the control plane beside its rows."""

    def __init__(self, revision: str, tables: list[Table], master_keys: list[str]) -> None:
        self.revision = revision
        self.tables = tables
        self.master_keys = master_keys


@contextmanager
def session(settings: PostgresSettings) -> Iterator[Connection[Any]]:
    """A connection for work that takes long: no limit on a statement's time."""
    arguments = connection_arguments(settings, search_path=CONTROL_SCHEMA, application="backup")
    arguments["options"] = f"-c search_path={CONTROL_SCHEMA} -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    with Connection.connect(arguments.pop("conninfo"), **arguments) as connection:
        yield connection


def save(settings: PostgresSettings, directory: Path, run: int) -> Control:
    """Raises `psycopg.Error`, `OSError`."""
    with session(settings) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        (revision,) = connection.execute("SELECT version_num FROM public.alembic_version").fetchone() or ("",)
        tables = [_save(connection, directory, run, name, columns) for name, columns in tables_of(connection)]
        keys = [key for (key,) in connection.execute(load("triggers", "secrets_master_keys")).fetchall()]
    return Control(revision, tables, keys)


def tables_of(connection: Connection[Any]) -> list[tuple[str, list[str]]]:
    """Tables of the control plane, with their columns."""
    return connection.execute(load("triggers", "tables_of_schema"), (CONTROL_SCHEMA,)).fetchall()


def _save(connection: Connection[Any], directory: Path, run: int, table: str, columns: list[str]) -> Table:
    name, rows = f"{_FOLDER}/{table}-r{run}.copy.gz", 0
    statement = copy_out(table, columns)
    with writing(directory, name) as (file, made), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            content = bytes(block)
            rows += content.count(b"\n")  # a newline within a value is written as \n, by two characters
            file.put(content)
    return Table(name=name, size=made.size, digest=made.digest, table=table, columns=columns, rows=rows)


def copy_out(table: str, columns: list[str]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(CONTROL_SCHEMA, table), _names(columns))


def _names(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def rows_found(settings: PostgresSettings) -> dict[str, int]:
    """Tables of both schemas that hold rows which somebody put there, and how many."""
    found = {}
    with session(settings) as connection:
        for schema in (CONTROL_SCHEMA, FOLDS_SCHEMA):
            for table, _ in connection.execute(load("triggers", "tables_of_schema"), (schema,)).fetchall():
                where = sql.SQL(_MADE_BY_ITSELF.get(table, ""))
                counted = sql.SQL("SELECT count(*) FROM {} {}").format(sql.Identifier(schema, table), where)
                if count := (connection.execute(counted).fetchone() or (0,))[0]:
                    found[f"{schema}.{table}"] = count
    return found


#: Rows that migrations and a start without events leave.
_MADE_BY_ITSELF: Final = {"revocation": "WHERE version > 1", "projection_offsets": "WHERE next_offset > 0"}


def drop(settings: PostgresSettings) -> None:
    """Every table of ours, whatever is in it."""
    with session(settings) as connection:
        drop_all(connection)


def drop_all(connection: Connection[Any]) -> None:
    """The same in the caller's transaction."""
    for schema in (CONTROL_SCHEMA, FOLDS_SCHEMA, SHADOW_SCHEMA):
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    connection.execute("DROP TABLE IF EXISTS public.alembic_version")


def fill(connection: Connection[Any], directory: Path, manifest: Manifest) -> None:
    """In the caller's transaction: exactly the rows of the backup, whatever order the tables refer to each other in.

    Raises `Damaged` where the tables have changed since, `psycopg.Error`.
    """
    here = dict(tables_of(connection))
    if list(here.items()) != [(table.table, table.columns) for table in manifest.tables]:
        raise Damaged(f"the tables of schema {CONTROL_SCHEMA} at revision {manifest.revision} are not those of the backup")
    references = connection.execute(load("triggers", "foreign_keys_of_schema"), (CONTROL_SCHEMA,)).fetchall()
    alter = "ALTER TABLE {} ALTER CONSTRAINT {} {}"
    for table, constraint in references:
        connection.execute(sql.SQL(alter).format(_control(table), sql.Identifier(constraint), sql.SQL("DEFERRABLE INITIALLY DEFERRED")))
    connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(_control, here))))
    for table in manifest.tables:
        _fill(connection, directory, table)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for name, constraint in references:
        connection.execute(sql.SQL(alter).format(_control(name), sql.Identifier(constraint), sql.SQL("NOT DEFERRABLE")))
    for table, column in connection.execute(load("triggers", "identities_of_schema"), (CONTROL_SCHEMA,)).fetchall():
        highest = sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), coalesce(max({}), 0) + 1, false) FROM {}")
        qualified = f"{CONTROL_SCHEMA}.{table}"
        connection.execute(highest.format(sql.Literal(qualified), sql.Literal(column), sql.Identifier(column), _control(table)))


def _control(table: str) -> sql.Identifier:
    return sql.Identifier(CONTROL_SCHEMA, table)


def _fill(connection: Connection[Any], directory: Path, table: Table) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(_control(table.table), _names(table.columns))
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for block in blocks(directory, table):
                copy.write(block)
        if cursor.rowcount != table.rows:
            raise Damaged(f"{table.name} gave {cursor.rowcount} rows, it had {table.rows}")
