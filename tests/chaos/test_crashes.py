"""Kill -9 anywhere: every 201 is in the inbox once, in append order, and nothing else is; each is delivered or scheduled, no retry forked.

Real servers, real processes, load all the time. Checked at the end by reading inbox, history, journal, delay topics and webhooks anew.
Faults that let a worker stand still past its session may leave one copy more in the log, which must lead to nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chaos.faults import PLACES, crash_rounds
from tests.chaos.rig import Rig
from tests.chaos.survive import survive

ROOT = Path(__file__).parents[2]


def test_every_place_in_the_product_is_one_at_which_a_test_kills() -> None:
    said = [
        name
        for package in ("access", "ingest", "processors", "projections", "delivery", "runtime", "triggers")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\breach\(f?\"([^\"]+)\"\)", path.read_text())
    ]
    named = {place for name in said for place in ([f"{app}.before_commit" for app in ("dedup", "project")] if "{" in name else [name])}
    # Not under load: tests of their own kill there.
    others = {
        place
        for place in named
        if place.startswith(("rebuild.", "recovery.", "replay.", "backup.", "restore.", "grow.", "batch.", "erasure."))
    }
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert {place for place in others if f'"{place}' not in tests} == set()
    assert named - others == PLACES.keys()
    assert len(said) == len(set(said)), "two places of one name: a test would not know at which it was"


@pytest.mark.timeout(400)
def test_a_few_rounds_of_kills_at_placed_points_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    """One process of each kind at once, place after place. Each place is reached, or the test fails (`Rig.crash_at`)."""
    survive(tmp_path, [*crash_rounds()[:2], "broker", "everything"])


@pytest.mark.verify
@pytest.mark.timeout(600)
def test_killed_at_every_placed_point_and_with_every_server_nothing_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    survive(tmp_path, [*crash_rounds(), "postgres", "redis", "broker", "everything"])


@pytest.mark.verify
@pytest.mark.timeout(400)
def test_workers_that_join_leave_and_stand_still_lose_nothing(tmp_path: Path) -> None:
    survive(tmp_path, ["two dedup workers", "project stands still"], copies_max=2)


@pytest.mark.timeout(200)
def test_a_naive_seen_table_loses_events_in_the_same_test(tmp_path: Path) -> None:
    """The tests above would be worth nothing if this one found nothing."""
    with Rig(tmp_path, modules={"dedup": "tests.chaos.naive_dedup"}).running() as rig:
        rig.load()
        rig.recovered()
        rig.crash_at({"dedup": ("dedup.after_put", 3)})
        rig.recovered()  # so that what is missing afterwards is a hole, and not the end that has not come yet
        anomalies = rig.settle(timeout_s=12)
    assert any("not in the inbox" in one for one in anomalies), anomalies


@pytest.mark.verify
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", ["dedup", "project", "api", "delivery"])
def test_killed_at_any_point_of_a_process_it_goes_on_before_the_next_kill(process: str, tmp_path: Path) -> None:
    """With a whole recovery in between, which shows at which point it would have stuck."""
    survive(tmp_path, [process, *(place for place, where in PLACES.items() if where == process)])


@pytest.mark.verify
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", ["dedup", "project", "delivery"])
def test_two_workers_joining_leaving_and_standing_still_lose_nothing(process: str, tmp_path: Path) -> None:
    survive(tmp_path, [f"two {process} workers", f"{process} stands still"], copies_max=2)
