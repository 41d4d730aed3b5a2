"""`POST /events` of one API process: the most it takes, its CPU per event, and its latency at 300 events/s, beside

* the architecture this service replaces (FastAPI, a Postgres row and Redis calls per request), one worker,
* the bare FastAPI server, and the bare ASGI one: same uvicorn, they read the body and answer.

All on this machine, load generator included: ratios count. Rounds of the servers alternate and one server is loaded at a time; neither
processors nor delivery run meanwhile. Where wrk is installed it confirms both figures of the ratio that matters. Afterwards every 201 has
to be in the inbox once. Run: `make bench BENCH=ingest`.
"""

from __future__ import annotations

import sys

from benchmarks import wrk
from benchmarks.load import Load, Outcome
from benchmarks.results import Figure, middle, report
from benchmarks.rig import read_ids, rig

CONNECTIONS = 32
ORGANIZATIONS = 50
RATE_PER_S = 300.0
SERVERS = {"old service": "benchmarks.comparators.old_service:app", "bare FastAPI": "benchmarks.comparators.bare:fastapi",
           "bare ASGI": "benchmarks.comparators.bare:asgi"}  # fmt: skip


def main(seconds: float, rounds: int) -> None:
    with rig() as bench:
        ports = {"ours": bench.start_api(), **{name: bench.start_server(name, app) for name, app in SERVERS.items()}}
        names = {"ours": "api"}
        keys = [tenant.key for tenant in bench.tenants(ORGANIZATIONS)]
        ids: list[str] = []
        most: dict[str, list[float]] = {name: [] for name in ports}
        cpu_us: dict[str, list[float]] = {name: [] for name in ports}
        p95_ms: dict[str, list[float]] = {"ours": [], "bare FastAPI": []}
        by_wrk: dict[str, list[float]] = {"ours": [], "bare FastAPI": []}

        def run(name: str, **load: float | None) -> Outcome:
            path = bench.folder / "ids"
            found = bench.load(Load(ports[name], keys, seconds, CONNECTIONS, run=name[:4], ids_path=str(path), **load))  # type: ignore[arg-type]
            if name == "ours":
                assert found.errors == 0, found.statuses
                ids.extend(read_ids(path))
            return found

        for name in ports:  # warm
            run(name)
        for number in range(rounds):
            for name in ports:
                before_s = bench.cpu_s(names.get(name, name))
                found = run(name)
                most[name].append(found.per_s)
                cpu_us[name].append(1e6 * (bench.cpu_s(names.get(name, name)) - before_s) / max(1, found.events))
                print(
                    f"round {number + 1}: {name:<13} {found.per_s:8,.0f}/s  p50 {found.p50_ms:.1f}  p99 {found.p99_ms:.1f} ms", flush=True
                )
            for name, taken in p95_ms.items():
                taken.append(run(name, rate_per_s=RATE_PER_S).p95_ms)
            if wrk.found():
                for name, rates in by_wrk.items():
                    rates.append(wrk.per_s(Load(ports[name], keys, seconds, CONNECTIONS, run=f"wrk-{number}")))
                print(f"         by wrk: ours {by_wrk['ours'][-1]:,.0f}/s, bare FastAPI {by_wrk['bare FastAPI'][-1]:,.0f}/s", flush=True)
        bench.system.start("dedup", "project")
        bench.check_inbox(ids)
    ours = middle(most["ours"])
    figures = [
        Figure("accepted", ours, "events/s", "old service", middle(most["old service"]), target=9),
        Figure("accepted beside bare FastAPI", ours, "events/s", "bare FastAPI", middle(most["bare FastAPI"]), target=0.8),
        Figure("accepted beside bare ASGI", ours, "events/s", "bare ASGI", middle(most["bare ASGI"])),
        Figure("CPU of the API", middle(cpu_us["ours"]), "us/event", "bare FastAPI", middle(cpu_us["bare FastAPI"]), less_is_better=True),
        Figure(
            f"p95 at {RATE_PER_S:.0f}/s", middle(p95_ms["ours"]), "ms", "bare FastAPI", middle(p95_ms["bare FastAPI"]), less_is_better=True
        ),
    ]
    if by_wrk["ours"]:
        wrks = middle(by_wrk["ours"]), middle(by_wrk["bare FastAPI"])
        figures.append(Figure("accepted, by wrk", wrks[0], "events/s", "bare FastAPI", wrks[1], target=0.8))
    report("ingest", figures, f"{len(ids):,} events, every 201 in the inbox once")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 8.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
