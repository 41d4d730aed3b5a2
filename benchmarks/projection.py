"""The projection, one process: accepted records into the inbox (rows, unacked index, offset; one transaction a batch), until the last row
is committed. Beside `COPY` of the same rows into tables of the same columns and indexes. Run: `make bench BENCH=projection [records]`."""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks import records
from benchmarks.live import project
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, rig
from runtime.postgres import connect
from schemas.topics import EVENTS_ACCEPTED

_TABLES = ("inbox", "unacked")


def main(count: int) -> None:
    with rig() as bench:
        settings = bench.system.settings
        records.accepted(settings.kafka, records.events(count, records.organizations()))
        ours = project(bench, {EVENTS_ACCEPTED: count})
        with connect(settings.postgres, application="bench") as connection:
            connection.autocommit = True
            for table in _TABLES:
                found = connection.execute(f"SELECT count(*) FROM folds.{table}").fetchone()
                assert found is not None
                assert found[0] == count, f"{table} has {found[0]} rows of {count} records"
            copied_s, copy_cpu_s = copy(bench, connection)
    report("projection", [
        Figure("projected", ours.rate, "rows/s", "COPY", count / copied_s, target=0.5),
        Figure("CPU of the process", 1e6 * ours.cpu_s / ours.records, "us/row"),
        Figure("CPU of PostgreSQL", 1e6 * ours.database_cpu_s / ours.records, "us/row", "COPY", 1e6 * copy_cpu_s / count),
    ], f"{count:,} rows")  # fmt: skip


def copy(bench: Rig, connection: Any) -> tuple[float, float]:
    """The same rows by COPY: seconds, and CPU seconds of the database server."""
    took_s = cpu_s = 0.0
    for table in _TABLES:
        connection.execute(f"CREATE TABLE public.{table} (LIKE folds.{table} INCLUDING ALL)")
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY folds.{table} TO STDOUT (FORMAT binary)") as out:
                data = list(out)
            began_s, began_cpu_s = time.monotonic(), bench.database_cpu_s()
            with cursor.copy(f"COPY public.{table} FROM STDIN (FORMAT binary)") as into:
                for part in data:
                    into.write(part)
        took_s += time.monotonic() - began_s
        cpu_s += bench.database_cpu_s() - began_cpu_s
    return took_s, cpu_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
