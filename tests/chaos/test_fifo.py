"""FIFO endpoints alone, the worker killed at each place of their deliveries: every event in order, one at the most again for each kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.deliveries import Attempted
from tests.chaos.rig import Rig

ORGANIZATIONS = 2
PLACES = ("delivery.after_plan", "delivery.after_post", "delivery.after_journal", "delivery.before_position", "delivery.before_commit")


@pytest.mark.verify
@pytest.mark.timeout(600)
def test_killed_at_every_place_and_taken_over_a_fifo_endpoint_goes_on_at_its_position(tmp_path: Path) -> None:
    kills = 0
    with Rig(tmp_path).running() as rig:
        rig.load(organizations=ORGANIZATIONS, kinds=("fifo",))
        rig.recovered()
        for place in PLACES:
            for count in (1, 7):
                rig.crash_at({"delivery": (place, count)})
                kills += 2  # one to have it read where it is to die, and that
                rig.progress(10)
        second = rig.second_worker("delivery")
        rig.progress(10)
        rig.kill("delivery")
        rig.kill(second)
        kills += 2
        rig.progress(10)
        rig.leave("delivery", second)
        anomalies = rig.settle()
        made = {(one.event_id, one.endpoint_id, one.attempt) for one in rig.look.journal() if isinstance(one, Attempted)}
        repeated = len(rig.receiver.received) - len(made)
    assert not anomalies, "\n".join([*anomalies[:40], *rig.announced[-60:]])
    assert 0 <= repeated <= kills * ORGANIZATIONS, f"{repeated} attempts that no record tells of after {kills} kills"
