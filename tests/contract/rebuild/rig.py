"""Live tables to rebuild: folded from the log by the folds themselves, one small batch after the other, and summed by Postgres's COPY."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import closing
from typing import Any

from psycopg import AsyncConnection, Connection, sql

from projections.folds import FOLDS, tables_of
from projections.log_reader import LogReader, Place, Range, bounds
from projections.offsets import load_offsets
from projections.rebuild import Progress, Rebuild, Report
from projections.sessions import connect as connect_for_long
from runtime import migrations
from runtime.clock import SYSTEM
from runtime.postgres import FOLDS_SCHEMA
from runtime.postgres import connect as connect_once
from runtime.settings import Settings
from tests.contract.databases import empty_database

TABLES = [table.name for table in tables_of(FOLDS)]


def quiet(_: Progress) -> None:
    pass


def rebuild(settings: Settings, target: str = "all", **options: Any) -> Report:
    return asyncio.run(Rebuild(settings, target, SYSTEM, quiet).run(**options))


def places(settings: Settings) -> set[Place]:
    return {(fold.topic, number) for fold in FOLDS for number in range(settings.kafka.partitions)}


def fold_live(settings: Settings, *, share: float = 1.0, batch: int = 500) -> None:
    """Go on with the live folds, as a worker would, to `share` of the log."""
    asyncio.run(_fold_live(settings, share, batch))


async def _fold_live(settings: Settings, share: float, batch: int) -> None:
    connection: AsyncConnection[Any] = await connect_for_long(settings.postgres, FOLDS_SCHEMA)
    by_topic = {fold.topic: fold for fold in FOLDS}
    ends = bounds(settings.kafka, places(settings))
    offsets = await load_offsets(connection, places(settings))
    with closing(LogReader(settings.kafka, batch_records_max=batch, stall_timeout_s=20)) as reader:
        for chunks in reader.read({place: Range(offsets[place], int(ends[place].end * share)) for place in ends}):
            for (topic, partition), records in chunks:
                decoded = by_topic[topic].decode(partition, records)
                await by_topic[topic].write(connection, partition, decoded, records[0].offset, records[-1].offset + 1)
    await connection.close()


def sums(settings: Settings, schema: str = FOLDS_SCHEMA) -> dict[str, str]:
    """SHA-256 of every table as `COPY … ORDER BY` gives it: nothing of the product's digests is in it."""
    found = {}
    with connect_once(settings.postgres, application="test") as connection:
        for table in [*TABLES, "projection_offsets"]:
            found[table] = _sum(connection, schema, table)
    return found


def _sum(connection: Connection[Any], schema: str, table: str) -> str:
    digest = hashlib.sha256()
    where = sql.Identifier(schema, table)
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY (SELECT * FROM {} t ORDER BY t) TO STDOUT").format(where)) as copy:
        for block in copy:
            digest.update(block)
    return digest.hexdigest()


def execute(settings: Settings, statement: str, *values: object) -> int:
    """One statement on the live tables, committed; rows it touched."""
    with connect_once(settings.postgres, search_path=FOLDS_SCHEMA, application="test") as connection:
        return connection.execute(statement.encode(), values).rowcount


def fetch(settings: Settings, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with connect_once(settings.postgres, search_path=FOLDS_SCHEMA, application="test") as connection:
        return connection.execute(statement.encode(), values).fetchall()


def straight(settings: Settings) -> dict[str, str]:
    """The sums of one pass over the whole log into another database."""
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        other = settings.model_copy(update={"postgres": made})
        fold_live(other, batch=5_000)
        return sums(other)
