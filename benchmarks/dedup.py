"""The dedup stage, one process: `events.ingested` to `events.accepted`, every record with a key, the clock stopped when the last record is
confirmed. Beside stock Faust doing the same (table read and write, send). Run: `make bench BENCH=dedup [records]`."""

from __future__ import annotations

import sys
import time

from benchmarks import records
from benchmarks.results import Figure, report
from benchmarks.rig import rig
from schemas.topics import EVENTS_ACCEPTED
from triggers.system import PROCESSES, until

_TIMEOUT_S = 900.0


def main(count: int, stock_count: int) -> None:
    ours_per_s, ours_us = measured(count, stock=False)
    stock_per_s, stock_us = measured(stock_count, stock=True)
    figures = [
        Figure("deduplicated", ours_per_s, "events/s", "stock Faust", stock_per_s, target=8),
        Figure("events in a CPU second", 1e6 / ours_us, "events", "stock Faust", 1e6 / stock_us, target=8),
        Figure("CPU", ours_us, "us/event", "stock Faust", stock_us, less_is_better=True),
    ]
    report("dedup", figures, f"{count:,} events ours, {stock_count:,} stock")


def measured(count: int, *, stock: bool) -> tuple[float, float]:
    """(events a second, CPU us an event) from the first accepted record to the last."""
    with rig() as bench:
        kafka = bench.system.settings.kafka
        records.ingested(kafka, records.events(count, records.organizations()))
        accepted = records.end_of(kafka, EVENTS_ACCEPTED)
        if stock:
            argv = [sys.executable, "-m", "benchmarks.comparators.stock_faust", str(bench.folder / "stock")]
            bench.system.supervisor.start("dedup", argv, env=bench.system.environment, log_path=bench.folder / "stock.log")
        else:
            bench.system.start_process("dedup", PROCESSES["dedup"])
        until(lambda: accepted() > 0, 120, "the first accepted record", 0.01)
        begun, began_s, before_s = accepted(), time.monotonic(), bench.cpu_s("dedup")
        until(lambda: accepted() >= count, _TIMEOUT_S, "the last accepted record", 0.05)
        took_s, cpu_s = time.monotonic() - began_s, bench.cpu_s("dedup") - before_s
        done = accepted() - begun
        assert stock or accepted() == count, "a record was doubled"
        assert bench.system.supervisor.restart_count("dedup") == 0
    print(f"{'stock Faust' if stock else 'ours'}: {done / took_s:,.0f}/s, {1e6 * cpu_s / done:.1f} us of CPU an event", flush=True)
    return done / took_s, 1e6 * cpu_s / done


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000, int(sys.argv[2]) if len(sys.argv) > 2 else 30_000)
