"""The dedup stage, one process: `events.ingested` to `events.accepted`, every record with a key, the clock stopped when the last record is
confirmed. Beside stock Faust doing the same (table read and write, send). Run: `make bench BENCH=dedup [records]`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from benchmarks import records
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, rig
from schemas.topics import EVENTS_ACCEPTED
from triggers.system import PROCESSES, until

_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Deduplicated:
    """Events a second, and CPU us an event, from the first accepted record to the last."""

    per_s: float
    cpu_us: float


def main(count: int, stock_count: int) -> None:
    with rig() as bench:
        ours = deduplicated(bench, count)
    with rig() as bench:
        stock = deduplicated(bench, stock_count, stock=True)
    figures = [
        Figure("deduplicated", ours.per_s, "events/s", "stock Faust", stock.per_s, target=8),
        Figure("events in a CPU second", 1e6 / ours.cpu_us, "events", "stock Faust", 1e6 / stock.cpu_us, target=8),
        Figure("CPU", ours.cpu_us, "us/event", "stock Faust", stock.cpu_us, less_is_better=True),
    ]
    report("dedup", figures, f"{count:,} events ours, {stock_count:,} stock")


def deduplicated(bench: Rig, count: int, *, organizations: int = records.ORGANIZATIONS, stock: bool = False) -> Deduplicated:
    """Write `count` events of so many organizations, then start one dedup process, which goes on running."""
    kafka = bench.system.settings.kafka
    records.ingested(kafka, records.events(count, records.organizations(organizations)))
    accepted = records.end_of(kafka, EVENTS_ACCEPTED)
    start(bench, stock=stock)
    until(lambda: accepted() > 0, _TIMEOUT_S, "the first accepted record", 0.01)
    begun, began_s, before_s = accepted(), time.monotonic(), bench.cpu_s("dedup")
    until(lambda: accepted() >= count, _TIMEOUT_S, "the last accepted record", 0.05)
    took_s, cpu_s = time.monotonic() - began_s, bench.cpu_s("dedup") - before_s
    done = accepted() - begun
    assert stock or accepted() == count, "a record was doubled"
    assert bench.system.supervisor.restart_count("dedup") == 0
    found = Deduplicated(done / took_s, 1e6 * cpu_s / done)
    print(f"{'stock Faust' if stock else 'ours'}: {found.per_s:,.0f}/s, {found.cpu_us:.1f} us of CPU an event", flush=True)
    return found


def start(bench: Rig, *, stock: bool) -> None:
    """One dedup process, ours or the same on stock Faust, under the name `dedup`."""
    if not stock:
        bench.system.start_process("dedup", PROCESSES["dedup"])
        return
    argv = [sys.executable, "-m", "benchmarks.comparators.stock_faust", str(bench.folder / "stock")]
    bench.system.supervisor.start("dedup", argv, env=bench.system.environment, log_path=bench.folder / "stock.log")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000, int(sys.argv[2]) if len(sys.argv) > 2 else 30_000)
