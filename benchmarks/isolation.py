"""One organization with 50 endpoints, 5 of them dead: one never answers, one drips a byte a second, one resets, one 500s, one 429s.

Runs with and without the dead five are interleaved, each with an organization of its own on the same running system; the p95 of the
healthy 45, from the 201 to the arrival at the receiver, is compared. Run: `make bench BENCH=isolation [pairs] [seconds] [events a second]`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final, NamedTuple

import httpx

from benchmarks.results import Figure, middle, report
from benchmarks.rig import Rig, Sink, rig
from runtime.postgres import connect
from triggers.bad_receiver import BadReceiver
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.system import PROCESSES, until

_DEAD: Final = ("/never", "/drip", "/reset", "/500", "/429")
_HEALTHY: Final = 45
_RATIO_MAX: Final = 1.5
_ABOVE_MAX_MS: Final = 50.0
#: Events before those that count: connections, and what the gates learn of an endpoint.
_WARM_UP: Final = 8
_TIMEOUT_S: Final = 120.0


class Latencies(NamedTuple):
    """Of all healthy deliveries of one run, in ms."""

    p50: float
    p95: float
    p99: float


def main(pairs: int, seconds: float, per_s: float) -> None:
    with rig(TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS="true") as bench, BadReceiver() as bad:
        for name in PROCESSES:
            bench.system.start_process(name, PROCESSES[name])
        bench.system.wait_ready()
        measured(bench, None, 3.0, per_s)  # the first run of a new system is no measure of anything
        runs: dict[bool, list[Latencies]] = {False: [], True: []}
        attempts = 0
        for number in range(pairs):
            for dead in ((False, True), (True, False))[number % 2]:
                before = len(bad.arrivals)
                runs[dead].append(measured(bench, bad if dead else None, seconds, per_s))
                attempts += len(bad.arrivals) - before
            without, beside = runs[False][-1], runs[True][-1]
            print(f"pair {number + 1}: p95 {without.p95:.0f} ms without the dead five, {beside.p95:.0f} ms beside them", flush=True)
    without_p95 = middle([one.p95 for one in runs[False]])
    target = max(_RATIO_MAX, (without_p95 + _ABOVE_MAX_MS) / without_p95)
    figures = [
        Figure(
            f"{name} of the healthy", middle([getattr(one, name) for one in runs[True]]), "ms", "without the dead",
            middle([getattr(one, name) for one in runs[False]]), target=target if name == "p95" else None, less_is_better=True,
        )
        for name in Latencies._fields
    ]  # fmt: skip
    asked = f"{_RATIO_MAX:g} times or {_ABOVE_MAX_MS:g} ms above"
    report("isolation", figures, f"{pairs} pairs, {per_s:g} events/s for {seconds:g} s to {_HEALTHY} endpoints; asked: {asked}")
    print(f"  attempts made at the dead five in all runs: {attempts} of {round(pairs * seconds * per_s) * len(_DEAD)} deliveries")


def measured(bench: Rig, bad: BadReceiver | None, seconds: float, per_s: float) -> Latencies:
    settings = bench.system.settings
    tenant = make_tenant(settings, "bench isolation")
    sink = Sink(bench.folder)
    for number in range(_HEALTHY):
        make_endpoint(settings, tenant.organization, sink.url(f"healthy/{number}"))
    dead = [make_endpoint(settings, tenant.organization, bad.url(path))[0] for path in _DEAD] if bad is not None else []
    posted = asyncio.run(post(bench.system.url, tenant, round(seconds * per_s) + _WARM_UP, per_s))
    try:
        wait_until_delivered(bench, tenant, len(posted) * _HEALTHY)
    finally:
        arrivals = sink.stop()
        with connect(settings.postgres, application="bench") as connection:  # what is left of this run must not disturb the next
            connection.execute("UPDATE control.endpoints SET enabled = false, disabled_reason = 'owner' WHERE id = ANY(%s)", (dead,))
    first = {}
    for event_id, path, at_s in arrivals:
        first.setdefault((event_id, path), at_s)
    assert len(first) == len(arrivals) == len(posted) * _HEALTHY, f"{len(arrivals)} arrived, {len(first)} of them first"
    counted = set(list(posted)[_WARM_UP:])
    took_ms = sorted(1000 * (at_s - posted[event_id]) for (event_id, _), at_s in first.items() if event_id in counted)
    return Latencies(*(took_ms[min(len(took_ms) - 1, int(len(took_ms) * share))] for share in (0.50, 0.95, 0.99)))


async def post(url: str, tenant: Tenant, count: int, per_s: float) -> dict[str, float]:
    """Event id → Unix seconds of its 201, in the order they were posted, at an even pace."""
    posted: dict[str, float] = {}
    headers = {"X-API-Key": tenant.key, "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        began_s = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began_s + number / per_s - time.monotonic()))
            answer = await client.post("/events", content=b'{"type":"order.paid","payload":{"n":%d}}' % number)
            assert answer.status_code == 201, answer.text
            posted[answer.json()["id"]] = time.time()
    return posted


def wait_until_delivered(bench: Rig, tenant: Tenant, count: int) -> None:
    with connect(bench.system.settings.postgres, application="bench") as connection:
        connection.autocommit = True

        def delivered() -> int:
            row = connection.execute(
                "SELECT count(*) FROM folds.attempts WHERE organization = %s AND outcome = 'delivered'", (tenant.organization,)
            ).fetchone()
            return 0 if row is None else int(row[0])

        until(lambda: delivered() >= count, _TIMEOUT_S, "every healthy delivery in the history", 0.2)


if __name__ == "__main__":
    given = [float(one) for one in sys.argv[1:]]
    main(*(int(given[0]) if given else 5, given[1] if len(given) > 1 else 18.0, given[2] if len(given) > 2 else 5.0))
