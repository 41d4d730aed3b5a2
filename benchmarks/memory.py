"""What each process keeps in memory under load: dedup with a million live keys, delivery with 50 endpoints, the API with all that posts.
Resident set, the highest of one look a second; and how it moves in the second half, which shows what leaks.
Run: `make bench BENCH=memory` or `python -m benchmarks.memory [minutes] [keys]`; 20 minutes are a soak."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict

from benchmarks.load import Load
from benchmarks.recovery import fill
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, Sink, read_ids, rig
from schemas.topics import DEDUP_CHANGELOG
from triggers.provision import make_endpoint
from triggers.system import PROCESSES

_RATE_PER_S = 150.0
_ENDPOINTS = 50
#: MB a process may keep: the aim. There is nothing to compare with.
_AIMS = {"api": 150.0, "dedup": 250.0, "project": 250.0, "delivery": 150.0}


class Looks:
    """One look a second at all processes, in a thread, until `stop`."""

    def __init__(self, bench: Rig) -> None:
        self._bench = bench
        self.seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            for name in _AIMS:
                self.seen[name].append((time.monotonic(), self._bench.resident_mb(name)))


def main(minutes: float, keys: int) -> None:
    with rig() as bench:
        sink = Sink(bench.folder)
        tenants = bench.tenants(_ENDPOINTS)
        for number, tenant in enumerate(tenants):
            make_endpoint(bench.system.settings, tenant.organization, sink.url(str(number)))
        fill(bench, DEDUP_CHANGELOG, keys)
        port = bench.start_api()
        for name in ("dedup", "project", "delivery"):
            bench.system.start_process(name, PROCESSES[name])
        looks = Looks(bench)
        path = bench.folder / "ids"
        found = bench.load(
            Load(port, [tenant.key for tenant in tenants], 60 * minutes, 64, rate_per_s=_RATE_PER_S, run="memory", ids_path=str(path))
        )
        assert found.errors == 0, found.statuses
        posted = read_ids(path)
        bench.check_inbox(posted)
        looks.stop()
        sink.stop()
        assert not any(bench.system.supervisor.restart_count(name) for name in _AIMS)
    figures: list[Figure] = []
    for name, seen in looks.seen.items():
        figures += [
            Figure(f"{name}, highest", max(mb for _, mb in seen), "MB", "aim", _AIMS[name], 1, less_is_better=True),
            Figure(f"{name}, growth in the second half", slope(seen[len(seen) // 2 :]), "MB/min"),
        ]
    report("memory", figures, f"{len(posted):,} events in {minutes:g} minutes, {keys:,} keys live")


def slope(seen: list[tuple[float, float]]) -> float:
    """MB a minute, by least squares."""
    mean_s = sum(at for at, _ in seen) / len(seen)
    mean_mb = sum(mb for _, mb in seen) / len(seen)
    spread = sum((at - mean_s) ** 2 for at, _ in seen)
    return 60 * sum((at - mean_s) * (mb - mean_mb) for at, mb in seen) / spread if spread else 0.0


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
