"""What an event costs when there is more of everything: 10,000 organizations instead of 10, five million rows in the inbox instead of none,
a million live idempotency keys instead of none, two dedup processes instead of one.

CPU per event is compared, of the process that does the work and, for the projection, of PostgreSQL too: on two cores a rate would mostly
show who else runs. Run: `make bench BENCH=growth` (`python -m benchmarks.growth [events] [organizations] [rows] [keys]`).
"""

from __future__ import annotations

import sys

from benchmarks import delivery, inbox, records
from benchmarks.dedup import deduplicated
from benchmarks.live import project
from benchmarks.load import Load
from benchmarks.recovery import fill
from benchmarks.results import Figure, middle, report
from benchmarks.rig import read_ids, rig
from schemas.topics import DEDUP_APP, DEDUP_CHANGELOG, EVENTS_ACCEPTED
from triggers.system import PROCESSES, until

FEW = 10
#: What "flat" means here: noise between two runs of the same work is about a tenth.
FLAT = 1.25
_API_SECONDS = 8.0
_WEBHOOKS = 10_000
_TIMEOUT_S = 900.0


def main(count: int, organizations: int, rows: int, keys: int) -> None:
    many, few = f"{organizations:,} organizations", f"{FEW} organizations"
    figures: list[Figure] = []

    def flat(metric: str, value: float, comparator: str, comparator_value: float) -> None:
        figures.append(Figure(metric, value, "us/event", comparator, comparator_value, FLAT, less_is_better=True))
        print(f"{metric}: {value:.1f} us an event; {comparator}: {comparator_value:.1f}", flush=True)

    flat(f"API, {many}", api(organizations), few, api(FEW))
    flat(f"dedup, {many}", dedup(count, organizations), few, dedup(count, FEW))
    flat(f"dedup, {keys:,} live keys", dedup(count, FEW, keys), "no live keys", dedup(count, FEW))
    flat("dedup, two processes", processes(count, 2), "one process", processes(count, 1))
    flat(f"projection, {many}", projection(count, organizations), few, projection(count, FEW))
    flat(f"projection, {rows:,} rows", projection(count, FEW, rows), "empty inbox", projection(count, FEW))
    flat(f"delivery, {many}, an endpoint each", deliver(organizations), few, deliver(FEW))
    report("growth", figures, f"{count:,} events")


def api(organizations: int) -> float:
    """CPU us of an accepted event, the key cache warm; the middle of three loads."""
    with rig() as bench:
        port = bench.start_api()
        keys = [tenant.key for tenant in bench.tenants(organizations)]
        path = bench.folder / "ids"
        ids: list[str] = []
        taken: list[float] = []
        for number in range(4):
            before_s = bench.cpu_s("api")
            found = bench.load(Load(port, keys, _API_SECONDS, run=f"growth{number}", ids_path=str(path)))
            assert found.errors == 0, found.statuses
            taken.append(1e6 * (bench.cpu_s("api") - before_s) / found.events)
            ids.extend(read_ids(path))
        bench.system.start("dedup", "project")
        bench.check_inbox(ids)
    return middle(taken[1:])


def dedup(count: int, organizations: int, keys: int = 0) -> float:
    with rig() as bench:
        if keys:
            fill(bench, DEDUP_CHANGELOG, keys)
        return deduplicated(bench, count, organizations=organizations).cpu_us


def processes(count: int, number: int) -> float:
    """CPU us an event of so many dedup processes together, from before the first record is written until the last is accepted."""
    with rig() as bench:
        kafka = bench.system.settings.kafka
        names = [f"dedup-{slot}" for slot in range(number)]
        for slot, name in enumerate(names):
            bench.system.start_process(name, PROCESSES["dedup"], {"TRIGGERS_PROCESSOR__SLOT": str(slot)})
        accepted = records.end_of(kafka, EVENTS_ACCEPTED)
        owners = records.organizations()
        records.ingested(kafka, records.events(1_000, owners))  # warm: every process has its table
        until(lambda: accepted() >= 1_000, _TIMEOUT_S, "the first accepted records", 0.05)
        until(lambda: bench.members(DEDUP_APP) == number, _TIMEOUT_S, "every process having partitions", 0.2)
        before_s = sum(bench.cpu_s(name) for name in names)
        records.ingested(kafka, records.events(count, owners, first=1_000))
        until(lambda: accepted() >= count + 1_000, _TIMEOUT_S, "the last accepted record", 0.05)
        assert accepted() == count + 1_000, "a record was doubled"
        return 1e6 * (sum(bench.cpu_s(name) for name in names) - before_s) / count


def projection(count: int, organizations: int, rows: int = 0) -> float:
    """CPU us a row, of the process and of PostgreSQL."""
    with rig() as bench:
        if rows:
            inbox.fill(bench, bench.tenants(1)[0], rows)
        made = records.events(count, records.organizations(organizations))
        records.accepted(bench.system.settings.kafka, made)
        found = project(bench, {EVENTS_ACCEPTED: count})
        return 1e6 * (found.cpu_s + found.database_cpu_s) / found.records


def deliver(organizations: int) -> float:
    with rig(TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS="true") as bench:
        return delivery.measured(bench, _WEBHOOKS, organizations=organizations)[1]


if __name__ == "__main__":
    asked = [int(one) for one in sys.argv[1:]]
    main(*asked, *(100_000, 10_000, 5_000_000, 1_000_000)[len(asked) :])
