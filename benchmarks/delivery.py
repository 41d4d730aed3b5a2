"""Delivery, one process, 50 endpoints of 50 organizations: accepted records to webhooks, each planned, posted, journalled. Beside a bare
client posting as many signed requests to the same receiver. Run: `make bench BENCH=delivery [records]`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

from benchmarks import records
from benchmarks.results import Figure, middle, report
from benchmarks.rig import Rig, Sink, rig
from schemas.topics import DELIVERIES_ATTEMPTS
from triggers.provision import make_endpoint, make_tenant
from triggers.system import PROCESSES, until

_TIMEOUT_S = 600.0
_CONCURRENCY = 64


def main(count: int, rounds: int) -> None:
    ours: list[float] = []
    ours_us: list[float] = []
    bare: list[float] = []
    bare_us: list[float] = []
    for number in range(rounds):
        with rig(TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS="true") as bench:
            per_s, cpu_us = measured(bench, count)
            ours.append(per_s)
            ours_us.append(cpu_us)
            per_s, cpu_us = bare_client(bench, count)
            bare.append(per_s)
            bare_us.append(cpu_us)
        print(f"round {number + 1}: ours {ours[-1]:,.0f}/s, bare client {bare[-1]:,.0f}/s", flush=True)
    figures = [
        Figure("delivered", middle(ours), "webhooks/s", "bare client", middle(bare), target=0.5),
        Figure("CPU", middle(ours_us), "us/webhook", "bare client", middle(bare_us), less_is_better=True),
    ]
    report("delivery", figures, f"{rounds} x {count:,} events, each at its endpoint once, journalled")


def measured(bench: Rig, count: int, *, organizations: int = records.ORGANIZATIONS) -> tuple[float, float]:
    """(webhooks a second, CPU us a webhook); each organization has one endpoint."""
    settings = bench.system.settings
    owners = [make_tenant(settings, f"bench {number}").organization for number in range(organizations)]
    sink = Sink(bench.folder)
    for owner in owners:
        make_endpoint(settings, owner, sink.url(owner))
    records.accepted(settings.kafka, records.events(count, owners))
    journalled = records.end_of(settings.kafka, DELIVERIES_ATTEMPTS)
    bench.system.start_process("delivery", PROCESSES["delivery"])
    until(lambda: journalled() > 0, 120, "the first journal record", 0.01)
    began_s, before_s = time.monotonic(), bench.cpu_s("delivery")
    until(lambda: journalled() >= 2 * count, _TIMEOUT_S, "a plan and an attempt of each event", 0.05)
    took_s, cpu_s = time.monotonic() - began_s, bench.cpu_s("delivery") - before_s
    counts = Counter(identity for identity, _, _ in sink.stop())
    assert (len(counts), set(counts.values())) == (count, {1}), f"{len(counts)} of {count} arrived, at most {max(counts.values())} times"
    return count / took_s, 1e6 * cpu_s / count


def bare_client(bench: Rig, count: int) -> tuple[float, float]:
    sink = Sink(bench.folder)
    argv = [sys.executable, "-m", "benchmarks.comparators.bare_client", str(count), str(_CONCURRENCY)]
    urls = [sink.url(str(number)) for number in range(records.ORGANIZATIONS)]
    found = subprocess.run([*argv, *urls], capture_output=True, text=True, check=True)
    took_s, cpu_s = map(float, found.stdout.split())
    assert len(sink.stop()) == count
    return count / took_s, 1e6 * cpu_s / count


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
