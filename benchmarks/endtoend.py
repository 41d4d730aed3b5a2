"""The whole system on this machine: API, dedup, projection, delivery, load generator and receiver.

At 200 events/s (open model): from the 201 to the webhook's arrival, and from the 201 to the event being readable in `GET /inbox`. Then the
rate is raised until the lag grows: the most that goes through dedup, inbox and delivery, beside what the architecture this service replaces
merely accepts. Nothing may be lost or doubled at any rate. Run: `make bench BENCH=endtoend`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import httpx

from benchmarks.ingest import SERVERS
from benchmarks.load import Load
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, Sink, read_times, rig
from runtime.postgres import connect
from triggers.provision import Tenant, make_endpoint
from triggers.system import until

ORGANIZATIONS = 20
RATE_PER_S = 200.0
#: What is left after the load ended has to be through within this, or the rate was too high.
_SETTLE_S = 5.0


class Watcher:
    """Reads the inbox of some organizations by long polls, as an integrator does, and notes when each event was first seen."""

    def __init__(self, url: str, tenants: list[Tenant]) -> None:
        self.seen: dict[str, float] = {}
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(tenant,), daemon=True) for tenant in tenants]
        for thread in self._threads:
            thread.start()

    def _watch(self, tenant: Tenant) -> None:
        with httpx.Client(base_url=self._url, headers={"X-API-Key": tenant.key}, timeout=30) as client:
            cursor = "now"
            while not self._stop.is_set():
                page = client.get("/inbox", params={"cursor": cursor, "status": "all", "limit": 1_000, "wait": 2}).json()
                at_s, cursor = time.time(), page["next_cursor"]
                for event in page["events"]:
                    self.seen.setdefault(event["id"], at_s)

    def stop(self) -> dict[str, float]:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        return self.seen


def main(seconds: float) -> None:
    with rig(TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS="true") as bench:
        old_port = bench.start_server("old service", SERVERS["old service"])
        tenants = bench.tenants(ORGANIZATIONS)
        keys = [tenant.key for tenant in tenants]
        old = max(bench.load(Load(old_port, keys, 5, 32, run=f"old{n}")).per_s for n in range(2))
        bench.system.supervisor.stop("old service")
        bench.system.start("dedup", "project", "delivery")
        port = bench.start_api()
        sink = Sink(bench.folder)
        for tenant in tenants:
            make_endpoint(bench.system.settings, tenant.organization, sink.url(tenant.organization))
        posted: dict[str, float] = {}
        posted |= run(bench, port, keys, 3, RATE_PER_S)  # warm
        bench.check_inbox(list(posted))
        watcher = Watcher(bench.system.url, tenants[:2])
        time_of = run(bench, port, keys, seconds, RATE_PER_S)
        bench.check_inbox(list(time_of))
        watched = watcher.stop()
        posted |= time_of
        most = 0.0
        for rate_per_s in (400.0, 600.0, 800.0, 1_000.0, 1_250.0, 1_500.0, 2_000.0):
            began_s = time.monotonic()
            found = run(bench, port, keys, seconds, rate_per_s)
            posted |= found
            try:
                deliver_all(bench, len(posted), _SETTLE_S)
            except TimeoutError:
                deliver_all(bench, len(posted), 300)
                print(f"{rate_per_s:.0f}/s: falls behind", flush=True)
                break
            most = len(found) / seconds
            print(f"{rate_per_s:.0f}/s: through, {time.monotonic() - began_s - seconds:.1f} s after the load began to end", flush=True)
        bench.check_inbox(list(posted))
        received = sink.stop()
    counts = Counter(identity for identity, _, _ in received)
    assert counts.keys() == posted.keys(), "an event was lost on its way to its webhook, or one came that nobody posted"
    first: dict[str, float] = {}
    for identity, _, at_s in received:
        first.setdefault(identity, at_s)
    webhook = sorted(1000 * (first[event_id] - at_s) for event_id, at_s in time_of.items())
    inbox = sorted(1000 * (watched[event_id] - at_s) for event_id, at_s in time_of.items() if event_id in watched)

    def quantile(values: list[float], share: float) -> float:
        return values[min(len(values) - 1, int(share * len(values)))]

    figures = [
        Figure("201 to webhook, p50", quantile(webhook, 0.5), "ms"),
        Figure("201 to webhook, p95", quantile(webhook, 0.95), "ms", "its p50", max(1.0, quantile(webhook, 0.5)), 5, less_is_better=True),
        Figure("201 to readable in the inbox, p50", quantile(inbox, 0.5), "ms"),
        Figure("201 to readable in the inbox, p95", quantile(inbox, 0.95), "ms"),
        Figure("sustained through inbox and delivery", most, "events/s", "old service accepts", old, target=3),
    ]
    report("endtoend", figures, f"{len(posted):,} events, each in the inbox once; {len(received) - len(posted)} webhooks came twice")


def run(bench: Rig, port: int, keys: list[str], seconds: float, rate_per_s: float) -> dict[str, float]:
    path = bench.folder / "ids"
    found = bench.load(Load(port, keys, seconds, 64, rate_per_s=rate_per_s, run="e2e", ids_path=str(path)))
    assert found.errors == 0, found.statuses
    return read_times(path)


def deliver_all(bench: Rig, count: int, timeout_s: float) -> None:
    """Until the projection of the journal has `count` successful attempts. Raises `TimeoutError`."""
    until(lambda: delivered(bench) >= count, timeout_s, "everything delivered", 0.1)


def delivered(bench: Rig) -> int:
    with connect(bench.system.settings.postgres, application="bench") as connection:
        row = connection.execute("SELECT count(*) FROM folds.attempts WHERE outcome = 'delivered'").fetchone()
    return 0 if row is None else int(row[0])


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
