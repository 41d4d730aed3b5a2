"""Named SQL: one statement a file beside the package that runs it; the first line of each says what it is for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load(package: str, name: str) -> bytes:
    """The text of `<package>/sql/<name>.sql`, as psycopg takes it. Raises `FileNotFoundError` naming the file."""
    return (files(package) / "sql" / f"{name}.sql").read_bytes()
