"""Named SQL: one statement a file beside the package that runs it; the first line of each says what it is for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from psycopg import sql


@cache
def load(package: str, name: str) -> bytes:
    """The text of `<package>/sql/<name>.sql`, as psycopg takes it. Raises `FileNotFoundError` naming the file."""
    return (files(package) / "sql" / f"{name}.sql").read_bytes()


def compose(package: str, name: str, **parts: sql.Composable) -> sql.Composed:
    """The same with its `{names}` filled in: identifiers, literals, other statements. Raises `KeyError` for one that is not given."""
    return sql.SQL(load(package, name).decode()).format(**parts)
