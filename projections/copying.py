"""Rows into a table by COPY in binary: the cheapest way in, for the database and for us. It takes every row or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg.abc import Query

from projections.fold import Connection


async def copy_rows(connection: Connection, statement: Query, types: Sequence[int | str], rows: Iterable[Sequence[Any]]) -> None:
    """`statement` is `COPY … FROM STDIN (FORMAT BINARY)`, `types` those of its columns, by number or name: nothing is cast.

    Raises `psycopg.errors.UniqueViolation` and what else Postgres refuses; the transaction has failed then.
    """
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            await copy.write_row(row)
