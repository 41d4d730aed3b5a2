"""How fast the shadow is folded from the log, against COPY of the same rows into tables with the same keys, in one run.

Run: `make bench BENCH=rebuild`, or `.venv/bin/python -m benchmarks.rebuild [events]`. Servers and rebuild run on this machine: the ratio
counts, not the absolute rate. Both begin with empty tables; the comparator copies rows that Postgres itself wrote out in binary, so it has
neither a log to read nor anything to decode.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from msgspec import Raw
from psycopg import sql

from projections.folds import TARGETS, tables_of
from projections.log_reader import LogReader, Range, bounds
from projections.shadow import Shadow, connect
from projections.shadow_tables import SHADOW_SCHEMA, make_indexes
from runtime.settings import Settings
from schemas import codec, ids, keys
from schemas.events import Ack, Ingested
from schemas.topics import EVENTS_ACCEPTED, INBOX_ACKS
from triggers.devstack.stack import Stack
from triggers.system import System

ORGANIZATIONS = 50
TARGET_RATIO, TARGET_RATE = 0.6, 40_000.0
RESULTS = Path(__file__).parent / "results" / "rebuild.jsonl"


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), progress=lambda _: None)
        stack.start()
        try:
            system = System({**os.environ, **stack.settings_env()}, Path(folder) / "logs")
            system.prepare()
            fill(system.settings, count)
            figures = asyncio.run(measure(system.settings, count))
        finally:
            stack.destroy()
    report(figures)


def fill(settings: Settings, count: int) -> None:
    """Accepted events of 50 organizations; two in five acknowledged, a hundred ids a record."""
    tuned = {"linger.ms": 20, "partitioner": "murmur2", "queue.buffering.max.messages": 1_000_000}
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, **tuned})
    organizations = [ids.organization_id(number + 1, bytes(10)) for number in range(ORGANIZATIONS)]
    acked: dict[str, list[ids.EventId]] = {organization: [] for organization in organizations}
    for number in range(count):
        organization = organizations[number * 7919 % ORGANIZATIONS]
        payload = b'{"order":%d,"lines":[{"sku":"A-17","amount":2},{"sku":"B-4","amount":1}],"note":"%s"}' % (number, b"n" * (number % 150))
        event = Ingested(
            v=1, id=ids.event_id(1_700_000_000_000 + number, number.to_bytes(10, "big")), organization=organization, mode="live",
            type="order.paid", received_at_ms=1_700_000_000_000 + number, fingerprint="0" * 64, payload=Raw(payload),
            dedup_key=f"k:{number}",
        )  # fmt: skip
        producer.produce(
            EVENTS_ACCEPTED, codec.encode_accepted(codec.encode(event), number, 1_700_000_000_000 + number), keys.record_key(organization)
        )
        if number % 5 < 2:
            acked[organization].append(event.id)
        if number % 10_000 == 0:
            producer.poll(0)
    for organization in organizations:
        for start in range(0, len(acked[organization]), 100):
            ack = Ack(v=1, organization=organization, mode="live", ids=acked[organization][start : start + 100])
            producer.produce(INBOX_ACKS, codec.encode(ack), keys.record_key(organization))
    assert producer.flush(120) == 0


async def measure(settings: Settings, count: int) -> dict[str, float]:
    owner = await connect(settings.postgres, SHADOW_SCHEMA)
    folds = TARGETS["inbox"]
    places = {(fold.topic, number) for fold in folds for number in range(settings.kafka.partitions)}
    with closing(LogReader(settings.kafka, batch_records_max=settings.rebuild.batch_records_max, stall_timeout_s=30)) as reader:
        ranges = bounds(settings.kafka, places)
        began_s = time.perf_counter()
        shadow = Shadow(owner, "inbox")
        await shadow.open(places, restart=True)
        for topic in [fold.topic for fold in folds]:
            for batch in reader.read({place: Range(0, part.end) for place, part in ranges.items() if place[0] == topic}):
                await shadow.load(batch)
        loaded_s = time.perf_counter()
        await shadow.finish()
        took_s = time.perf_counter() - began_s
    rows = 0
    copied_s = 0.0
    for table in tables_of(folds):
        cursor = await owner.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name)))
        rows += (await cursor.fetchone() or (0,))[0]
    await owner.execute("CREATE SCHEMA copied")
    for table in tables_of(folds):
        copied_s += await copy_again(owner, table.name)
    await owner.close()
    return {
        "rows_per_s": rows / took_s, "copy_rows_per_s": rows / copied_s, "events_per_s": count / took_s,
        "load_share": (loaded_s - began_s) / took_s,
    }  # fmt: skip


async def copy_again(owner: Any, table: str) -> float:
    """Seconds for the same rows, given in binary, into an empty table, with the same keys and indexes made afterwards."""
    async with owner.cursor() as cursor, cursor.copy(sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(sql.Identifier(table))) as out:
        blocks = [bytes(block) async for block in out]
    await owner.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(table), sql.Identifier(f"{table}_done")))
    await owner.execute(sql.SQL("ALTER TABLE {} SET SCHEMA copied").format(sql.Identifier(f"{table}_done")))
    await owner.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(
            sql.Identifier(SHADOW_SCHEMA, table), sql.Identifier("folds", table)
        )
    )
    began_s = time.perf_counter()
    async with owner.transaction():
        await owner.execute("SET LOCAL synchronous_commit = off")
        async with (
            owner.cursor() as cursor,
            cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))) as into,
        ):
            for block in joined(blocks):
                await into.write(block)
        await make_indexes(owner, [table])
        await owner.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))
    return time.perf_counter() - began_s


def joined(blocks: list[bytes]) -> list[bytes]:
    """A row a block comes out; 64 KiB go in, as any client would send them."""
    whole = b"".join(blocks)
    return [whole[start : start + 65_536] for start in range(0, len(whole), 65_536)]


def report(figures: dict[str, float]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    ratio = figures["rows_per_s"] / figures["copy_rows_per_s"]
    common = {
        "scenario": "rebuild",
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "at": datetime.now(UTC).isoformat(),
    }
    rows = [
        {
            "metric": "rows", "value": round(figures["rows_per_s"]), "unit": "1/s", "comparator": "COPY of the same rows",
            "comparator_value": round(figures["copy_rows_per_s"]), "ratio": round(ratio, 2), "target": TARGET_RATIO,
            "met": ratio >= TARGET_RATIO,
        },
        {
            "metric": "events", "value": round(figures["events_per_s"]), "unit": "1/s", "comparator": None, "comparator_value": None,
            "ratio": None, "target": TARGET_RATE, "met": figures["events_per_s"] >= TARGET_RATE,
        },
    ]  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        for row in rows:
            file.write(json.dumps({**common, **row}) + "\n")
    rates = f"{figures['rows_per_s']:>10,.0f} rows/s  {figures['events_per_s']:>10,.0f} events/s"
    print(f"rebuild  {rates}  (loading {figures['load_share']:.0%} of the time)")
    print(f"COPY     {figures['copy_rows_per_s']:>10,.0f} rows/s  of the same rows; ratio {ratio:.2f}, target {TARGET_RATIO}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
