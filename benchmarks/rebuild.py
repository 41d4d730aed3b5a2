"""How fast the shadow is folded from the log (inbox, acks, unacked, with keys, indexes and statistics), against COPY of the same rows
and against the live projection of the same records, whose rows must be the same.

COPY is given the rows in binary, without a log to read or anything to decode: into tables that have their indexes, as the projection's
benchmark does it, and into tables that get them afterwards, as the rebuild does. Run: `make bench BENCH=rebuild`, or
`.venv/bin/python -m benchmarks.rebuild [events]`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from typing import Any

from psycopg import sql

from benchmarks import records
from benchmarks.live import project
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, rig
from projections.digests import compare
from projections.folds import TARGETS, tables_of
from projections.log_reader import LogReader, Range, bounds
from projections.shadow import Shadow, connect
from projections.shadow_tables import SHADOW_SCHEMA, make_indexes
from runtime.postgres import FOLDS_SCHEMA
from runtime.settings import Settings
from schemas import codec, keys
from schemas.events import Ack
from schemas.topics import EVENTS_ACCEPTED, INBOX_ACKS

_IDS_PER_ACK = 100


def main(count: int) -> None:
    with rig() as bench:
        settings = bench.system.settings
        records.accepted(settings.kafka, records.events(count, records.organizations()))
        acked = records.produce(settings.kafka, INBOX_ACKS, acks(count))
        live = project(bench, {EVENTS_ACCEPTED: count, INBOX_ACKS: acked})
        bench.system.supervisor.stop("project")
        figures = asyncio.run(measure(bench, count, live.rate * count / (count + acked)))
    report("rebuild", figures, f"{count:,} events")


def acks(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Two in five events of every organization, a hundred ids a record."""
    owners = records.organizations()
    listed: dict[str, list[Any]] = {owner: [] for owner in owners}
    for number, event in enumerate(records.events(count, owners)):
        if number // len(owners) % 5 < 2:
            listed[event.organization].append(event.id)
    for owner in owners:
        for start in range(0, len(listed[owner]), _IDS_PER_ACK):
            ack = Ack(v=1, organization=owner, mode="live", ids=listed[owner][start : start + _IDS_PER_ACK])
            yield keys.record_key(owner), codec.encode(ack)


async def measure(bench: Rig, count: int, live_rate: float) -> list[Figure]:
    """`live_rate`: events/s of the live projection, which has folded the same records."""
    settings = bench.system.settings
    owner = await connect(settings.postgres, SHADOW_SCHEMA)
    folds = TARGETS["inbox"]
    places = {(fold.topic, number) for fold in folds for number in range(settings.kafka.partitions)}
    with closing(LogReader(settings.kafka, batch_records_max=settings.rebuild.batch_records_max, stall_timeout_s=30)) as reader:
        ranges = bounds(settings.kafka, places)
        began_s, began_cpu_s, began_database_s = time.perf_counter(), time.process_time(), bench.database_cpu_s()
        shadow = Shadow(owner, "inbox")
        await shadow.open(places, restart=True)
        for topic in [fold.topic for fold in folds]:
            wanted = {place: Range(0, part.end) for place, part in ranges.items() if place[0] == topic}
            async with aclosing(reader.read_ahead(wanted)) as batches:
                async for batch in batches:
                    await shadow.load(batch)
        loaded_s = time.perf_counter() - began_s
        await shadow.finish()
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        database_cpu_s = bench.database_cpu_s() - began_database_s
    await check(settings, shadow)
    rows, indexed_s, afterwards_s = 0, 0.0, 0.0
    for table in tables_of(folds):
        found = await (await owner.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name)))).fetchone()
        assert found is not None
        rows += found[0]
        data = await binary(owner, table.name)
        indexed_s += await copy_again(owner, table.name, data, indexes_first=True)
        afterwards_s += await copy_again(owner, table.name, data, indexes_first=False)
    await owner.close()
    return [
        Figure("rows", rows / took_s, "rows/s", "COPY, indexes there", rows / indexed_s, target=0.6),
        Figure("rows beside a load", rows / took_s, "rows/s", "COPY, indexes afterwards", rows / afterwards_s),
        Figure("events", count / took_s, "events/s", "the live projection", live_rate, target=1.5),
        Figure("until loaded, of the whole", loaded_s, "s", "the whole", took_s),
        Figure("CPU of the process", 1e6 * cpu_s / count, "us/event"),
        Figure("CPU of PostgreSQL", 1e6 * database_cpu_s / count, "us/event"),
    ]


async def check(settings: Settings, shadow: Shadow) -> None:
    """Raises `AssertionError` where the shadow's rows are not those of the live projection."""
    live = await connect(settings.postgres, FOLDS_SCHEMA)
    try:
        for table in shadow.tables:
            found = await compare(live, shadow.connection, table, settings.kafka.partitions)
            assert not found.differences, f"{table.name}: {found.listed}"
    finally:
        await live.close()


async def binary(owner: Any, table: str) -> list[bytes]:
    """A table's rows, in blocks of 64 KiB, as any client would send them."""
    async with owner.cursor() as cursor, cursor.copy(sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(sql.Identifier(table))) as out:
        whole = b"".join([bytes(block) async for block in out])
    return [whole[start : start + 65_536] for start in range(0, len(whole), 65_536)]


async def copy_again(owner: Any, table: str, data: list[bytes], *, indexes_first: bool) -> float:
    """Seconds to put the rows into an empty table with the same keys and indexes."""
    kept, name = sql.Identifier(SHADOW_SCHEMA, f"{table}_kept"), sql.Identifier(SHADOW_SCHEMA, table)
    await owner.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(name, sql.Identifier(f"{table}_kept")))
    await owner.execute("CREATE SCHEMA IF NOT EXISTS aside")
    await owner.execute(sql.SQL("ALTER TABLE {} SET SCHEMA aside").format(kept))
    made = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(name, sql.Identifier("folds", table))
    await owner.execute(made)
    if indexes_first:
        await make_indexes(owner, [table])
    began_s = time.perf_counter()
    async with owner.transaction():
        await owner.execute("SET LOCAL synchronous_commit = off")
        async with owner.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(name)) as into:
            for block in data:
                await into.write(block)
        if not indexes_first:
            await make_indexes(owner, [table])
    took_s = time.perf_counter() - began_s
    await owner.execute(sql.SQL("DROP TABLE aside.{}").format(sql.Identifier(f"{table}_kept")))
    return took_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
