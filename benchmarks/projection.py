"""The projection, one process: accepted records into the inbox (rows, unacked index, offset; one transaction a batch), until the last row
is committed. Beside `COPY` of the same rows into tables of the same columns and indexes. Run: `make bench BENCH=projection [records]`."""

from __future__ import annotations

import sys
import time

from benchmarks import records
from benchmarks.results import Figure, report
from benchmarks.rig import rig
from runtime.postgres import connect
from triggers.system import PROCESSES, until

_TIMEOUT_S = 900.0
_TABLES = ("inbox", "unacked")


def main(count: int) -> None:
    with rig() as bench:
        settings = bench.system.settings
        records.accepted(settings.kafka, records.events(count, records.organizations()))
        with connect(settings.postgres, application="bench") as connection:
            connection.autocommit = True

            def rows() -> int:
                found = connection.execute(
                    "SELECT coalesce(sum(next_offset), 0) FROM folds.projection_offsets WHERE topic = 'events.accepted'"
                )
                row = found.fetchone()
                return 0 if row is None else int(row[0] or 0)

            bench.system.start_process("project", PROCESSES["project"])
            until(lambda: rows() > 0, 60, "the first row", 0.01)
            begun, began_s, before_s = rows(), time.monotonic(), bench.cpu_s("project")
            until(lambda: rows() >= count, _TIMEOUT_S, "the last row", 0.02)
            took_s, cpu_s = time.monotonic() - began_s, bench.cpu_s("project") - before_s
            ours = (count - begun) / took_s
            found = connection.execute("SELECT count(*) FROM folds.inbox").fetchone()
            assert found is not None
            assert found[0] == count, f"{found[0]} rows of {count} records"
            copied = 0.0
            for table in _TABLES:
                connection.execute(f"CREATE TABLE public.{table} (LIKE folds.{table} INCLUDING ALL)")
                with connection.cursor() as cursor:
                    with cursor.copy(f"COPY folds.{table} TO STDOUT (FORMAT binary)") as copy:
                        data = list(copy)
                    began_s = time.monotonic()
                    with cursor.copy(f"COPY public.{table} FROM STDIN (FORMAT binary)") as copy:
                        for part in data:
                            copy.write(part)
                copied += time.monotonic() - began_s
    figures = [
        Figure("projected", ours, "rows/s", "COPY", count / copied, target=0.5),
        Figure("CPU of the process", 1e6 * cpu_s / (count - begun), "us/row"),
    ]
    report("projection", figures, f"{count:,} rows")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
