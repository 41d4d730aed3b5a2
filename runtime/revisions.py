"""At which revision the tables are, without Alembic: a process that only has to know it would keep 25 MB of libraries for that."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg

from runtime.postgres import connect
from runtime.settings import PostgresSettings

_FOLDER: Final = Path(__file__).parent / "migrations" / "versions"


def newest() -> str:
    """The newest revision this code knows: each is named after its file, and files are numbered."""
    return max(path.stem for path in _FOLDER.glob("[0-9]*.py"))


def current(settings: PostgresSettings) -> str | None:
    """The revision the database is at, or None for an empty one. Raises `psycopg.OperationalError`."""
    with connect(settings, search_path="public", application="wait") as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            return None
    return None if row is None else str(row[0])
