"""Kill -9 anywhere: every 201 is in the inbox once, in append order, and nothing else is; each is delivered or scheduled, no retry forked.

Real servers, real processes, load all the time. Checked at the end by reading inbox, history, journal and delay topics anew. Faults that
let a worker stand still past its session may leave one copy more in the log, which must lead to nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, PLACES
from tests.chaos.rig import Rig

ROUNDS_VERIFY = 24


def survive(tmp_path: Path, faults: Sequence[str], *, seed: int = 1, copies_max: int = 1) -> None:
    with Rig(tmp_path).running() as rig:
        rig.load(seed=seed)
        rig.progress()
        for fault in faults:
            print(f"{fault} ...", flush=True)
            FAULTS[fault](rig)
            rig.progress()
        anomalies = rig.settle(copies_max=copies_max)
    assert not anomalies, "\n".join([f"after {', '.join(faults)} (seed {seed}):", *anomalies[:40], *rig.announced[-30:]])


@pytest.mark.timeout(400)
def test_a_few_rounds_of_kills_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    placed = ["dedup.after_send", "project.in_transaction", "api.after_append", "delivery.after_journal"]
    survive(tmp_path, [*placed, "postgres", "redis", "broker", "everything"])


@pytest.mark.timeout(400)
def test_workers_that_join_leave_and_stand_still_lose_nothing(tmp_path: Path) -> None:
    survive(tmp_path, ["two dedup workers", "delivery stands still"], copies_max=2)


@pytest.mark.verify
@pytest.mark.timeout(400)
@pytest.mark.parametrize("process", ["dedup", "project", "api", "delivery"])
def test_killed_at_any_placed_point_nothing_is_lost_doubled_or_reordered(process: str, tmp_path: Path) -> None:
    survive(tmp_path, [place for place, where in PLACES.items() if where == process])


@pytest.mark.timeout(200)
def test_a_naive_seen_table_loses_events_in_the_same_test(tmp_path: Path) -> None:
    """The tests above would be worth nothing if this one found nothing."""
    with Rig(tmp_path, modules={"dedup": "tests.chaos.naive_dedup"}).running() as rig:
        rig.load()
        rig.progress()
        rig.crash_at("dedup", "dedup.after_put", 3)
        anomalies = rig.settle(timeout_s=12)
    assert any("not in the inbox" in one for one in anomalies), anomalies


@pytest.mark.verify
@pytest.mark.timeout(400)
def test_killed_servers_and_a_killed_everything_lose_nothing(tmp_path: Path) -> None:
    survive(tmp_path, ["postgres", "redis", "broker", "everything"])


@pytest.mark.verify
@pytest.mark.timeout(400)
@pytest.mark.parametrize("process", ["dedup", "project", "delivery"])
def test_two_workers_joining_leaving_and_standing_still_lose_nothing(process: str, tmp_path: Path) -> None:
    survive(tmp_path, [f"two {process} workers", f"{process} stands still"], copies_max=2)


@pytest.mark.verify
@pytest.mark.timeout(2_400)
def test_many_rounds_of_faults_in_random_order_lose_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
    chosen = random.Random(seed)
    survive(tmp_path, [chosen.choice(sorted(FAULTS)) for _ in range(ROUNDS_VERIFY)], seed=seed, copies_max=2)
