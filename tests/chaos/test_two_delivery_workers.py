"""Two delivery workers and more, under load, with receivers that fail: killed, standing still, joining, leaving, told to stop.

Checked at the end (`tests.chaos.checks`): each (event, endpoint) has a 2xx attempt, a dead letter or a schedule; the history has every
attempt that receivers saw but for one of a delivery per death; one `webhook-id` for each; no retry forked; none early.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.deliveries import Attempted
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key
from tests.chaos.rig import Rig
from triggers.receiver import Received
from triggers.system import until

#: Longer than it takes a worker to be taken over, so that no attempt ends by itself meanwhile.
DEADLINE_S = 30
STOP_S = 3.0
STORM_VERIFY = 10
KILLS_VERIFY = 6


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, settings={"TRIGGERS_DELIVERY__SHUTDOWN_TIMEOUT_S": str(STOP_S)}).running() as running:
        running.load()
        running.recovered()
        yield running


class Held:
    """An endpoint of each organization that leaves its first attempts without an answer until it is told to answer."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._rig = rig
        self._answer = threading.Event()
        self.paths = {f"/held/{name}/{number}": writer.organization for number, writer in enumerate(rig.writers)}
        for path, organization in self.paths.items():
            rig.receiver.answers[path] = self._hold
            # One at a time: what comes meanwhile waits or is put off.
            rig.add_endpoint(OrganizationId(organization), path, deadline_s=DEADLINE_S, concurrency=1)

    def _hold(self, _received: Received, before: int) -> int:
        if before == 0:
            self._answer.wait(DEADLINE_S)
        return 204

    def under_way(self) -> dict[str, str]:
        """Waits until each has an attempt under way; path → event."""
        until(lambda: all(self._rig.receiver.of(path) for path in self.paths), 60, "an attempt at each endpoint that is held")
        return {path: self._rig.receiver.of(path)[0].headers["webhook-id"] for path in self.paths}

    def answer(self) -> None:
        self._answer.set()

    def seen(self, path: str, event: str) -> int:
        return sum(one.headers["webhook-id"] == event for one in self._rig.receiver.of(path))

    def partition(self, path: str) -> int:
        return partition_of(record_key(OrganizationId(self.paths[path])), self._rig.system.settings.kafka.partitions)

    def attempts(self, path: str, event: str) -> list[Attempted]:
        """What the journal has of it."""
        endpoint = self._rig.paths[path]
        entries = [one for one in self._rig.look.journal() if isinstance(one, Attempted)]
        return [one for one in entries if (one.event_id, one.endpoint_id) == (event, endpoint)]


def lines(rig: Rig, name: str, event: str) -> list[dict[str, object]]:
    """Log lines of one kind."""
    text = rig.system.supervisor.log_path(name).read_text().splitlines()
    return [line for line in map(json.loads, text) if line["event"] == event]


def partitions(rig: Rig, name: str, event: str, skip: int = 0) -> set[int]:
    return {number for line in lines(rig, name, event)[skip:] for number in line["partitions"]}  # type: ignore[attr-defined]


@contextmanager
def stopping_is_quick(rig: Rig) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert not [one for one in rig.announced if "was killed" in one], rig.announced
    print(f"stopped and taken over in {time.monotonic() - began_s:.1f} s", flush=True)


def kept_partitions_go_on(rig: Rig) -> None:
    """A worker joins while attempts are under way: those of partitions that stay where they are end as if nothing had happened."""
    held = Held(rig, "join")
    events = held.under_way()
    before = len(lines(rig, "delivery", "partitions.assigned")), len(lines(rig, "delivery", "partitions.revoked"))
    rig.join("delivery", 0, 1)
    moved = partitions(rig, "delivery", "partitions.revoked", before[1])
    until(lambda: partitions(rig, "delivery-1", "partitions.assigned") == moved, 60, "the other taking what moved")
    assert len(moved) == 2, "half of four"
    assert not partitions(rig, "delivery", "partitions.assigned", before[0]), "nothing that stayed was taken anew"
    held.answer()
    kept = [path for path in events if held.partition(path) not in moved]
    assert kept, "three organizations, and two partitions moved"
    for path in kept:
        until(lambda path=path: bool(held.attempts(path, events[path])), 60, "the attempt being journalled", 0.3)  # type: ignore[misc]  # a bound default is not inferred
        assert [(one.attempt, one.status, one.worker) for one in held.attempts(path, events[path])] == [(1, 204, "delivery-0")]
        assert held.seen(path, events[path]) == 1


def a_worker_told_to_stop_ends_what_is_under_way(rig: Rig) -> None:
    """SIGTERM: answers that come within the time allowed are journalled by the worker that asked, and nothing is sent twice."""
    held = Held(rig, "stop")
    events = held.under_way()
    owned = rig.owned("delivery")["delivery-1"]
    theirs = {path for path in events if held.partition(path) in owned}
    stop = threading.Timer(STOP_S / 3, held.answer)
    with stopping_is_quick(rig):
        stop.start()
        rig.leave("delivery", "delivery-1")
    for path, event in events.items():
        until(lambda path=path, event=event: bool(held.attempts(path, event)), 60, "the attempt being journalled", 0.3)  # type: ignore[misc]
        worker = "delivery-1" if path in theirs else "delivery-0"
        assert [(one.attempt, one.status, one.worker) for one in held.attempts(path, event)] == [(1, 204, worker)]
        assert held.seen(path, event) == 1


def what_a_frozen_worker_finishes_is_ignored(rig: Rig, sleeper: str, slot: int, other: int) -> None:
    """SIGSTOP past its session: the other takes over and attempts again; answers that come for the frozen one lead to nothing."""
    held = Held(rig, f"freeze{slot}")
    events = held.under_way()
    owned = rig.owned("delivery")[f"delivery-{slot}"]
    frozen = [path for path in events if held.partition(path) in owned]
    with rig.standing_still(sleeper):
        held.answer()
        rig.wait_owners("delivery", other)
        for path in frozen:
            until(lambda path=path: bool(held.attempts(path, events[path])), 60, "the other worker attempting it", 0.3)  # type: ignore[misc]
    rig.wait_owners("delivery", 0, 1)
    for path in frozen:
        assert [(one.attempt, one.status, one.worker) for one in held.attempts(path, events[path])] == [(1, 204, f"delivery-{other}")]
        assert held.seen(path, events[path]) == 2


def storm(rig: Rig, times: int) -> None:
    """A third worker joins and leaves, while the others work."""
    for _ in range(times):
        third = rig.join("delivery", 0, 1, 2)
        rig.progress(3)
        rig.leave("delivery", third, 0, 1)


def kill_in_turn(rig: Rig, times: int) -> None:
    """Each is back and owns partitions before the other is killed."""
    for number in range(times):
        name = ("delivery", "delivery-1")[number % 2]
        until(lambda name=name: rig.system.supervisor.alive(name), 20, f"{name} being alive")  # type: ignore[misc]
        before = len(lines(rig, name, "partitions.assigned"))
        rig.kill(name)
        rig.progress(10)
        until(lambda name=name, before=before: len(lines(rig, name, "partitions.assigned")) > before, 60, f"{name} being back")  # type: ignore[misc]
    rig.wait_owners("delivery", 0, 1)


@pytest.mark.timeout(400)
def test_two_workers_that_join_freeze_and_stop_under_load_lose_double_and_hurry_nothing(rig: Rig) -> None:
    kept_partitions_go_on(rig)
    what_a_frozen_worker_finishes_is_ignored(rig, "delivery", 0, 1)
    a_worker_told_to_stop_ends_what_is_under_way(rig)
    anomalies = rig.settle(copies_max=2)
    assert not anomalies, "\n".join([*anomalies[:40], *rig.announced[-60:]])


@pytest.mark.verify
@pytest.mark.timeout(1_500)
def test_rebalance_storms_kills_and_freezes_of_many_workers_lose_double_and_hurry_nothing(rig: Rig) -> None:
    kept_partitions_go_on(rig)
    storm(rig, STORM_VERIFY)
    kill_in_turn(rig, KILLS_VERIFY)
    storm(rig, 2)
    for sleeper, slot, other in (("delivery", 0, 1), ("delivery-1", 1, 0)):
        what_a_frozen_worker_finishes_is_ignored(rig, sleeper, slot, other)
    a_worker_told_to_stop_ends_what_is_under_way(rig)
    anomalies = rig.settle(copies_max=2)
    assert not anomalies, "\n".join([*anomalies[:40], *rig.announced[-60:]])
