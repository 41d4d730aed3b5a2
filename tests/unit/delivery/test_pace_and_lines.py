"""An endpoint's rate and its line, against what they promise, under a controlled clock."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from delivery.lines import Line
from delivery.pace import Pace

GRACE_MS = 1_000


@given(
    rate=st.integers(1, 600),
    gaps=st.lists(st.integers(0, 3_000), min_size=1, max_size=60),
    late=st.lists(st.integers(0, GRACE_MS), min_size=60, max_size=60),
)
def test_turns_are_in_order_never_early_and_no_window_sees_more_than_the_rate_and_its_burst(
    rate: int, gaps: list[int], late: list[int]
) -> None:
    pace, now = Pace("mine", rate, GRACE_MS), 1_000_000
    turns, used = [], []
    for gap, behind in zip(gaps, late, strict=False):
        now += gap
        turn = pace.take(now)
        assert turn >= now - GRACE_MS
        turns.append(turn)
        back = turn + behind
        used.append(now if turn <= now else back)
        if turn > now:
            assert pace.holds("mine", turn, back)
            assert not pace.holds("mine", turn, turn - 1)
            assert not pace.holds("theirs", turn, back)
            assert not pace.holds("mine", turn, turn + GRACE_MS + 1)
    interval = 60_000 / rate
    assert all(later - earlier >= interval - 1 for earlier, later in pairwise(turns))
    used.sort()
    for first in range(len(used)):
        for last in range(first, len(used)):
            assert last - first + 1 <= (used[last] - used[first] + GRACE_MS) / interval + 2


def test_a_backlog_gets_turns_at_its_rate_and_nobody_waits_longer_than_those_before_need() -> None:
    pace = Pace("mine", 60, GRACE_MS)
    turns = [pace.take(0) for _ in range(100)]
    assert turns == [number * 1_000 - GRACE_MS for number in range(100)]


@given(st.lists(st.tuples(st.sampled_from(["come", "come again", "success", "failure", "nothing"]), st.floats(0, 5)), max_size=200))
def test_a_line_never_holds_more_than_its_room_nor_attempts_more_than_its_bound(steps: list[tuple[str, float]]) -> None:
    line, now, tickets = Line(8, 20, 1.0), 0.0, []
    for what, seconds in steps:
        now += seconds
        if what.startswith("come"):
            place = line.place(now, again=what == "come again")
            if place == "run":
                tickets.append(started(line, now))
            elif place == "wait":
                line.waiting += 1
                assert line.running + line.waiting <= (20 if what == "come again" else 15)
        elif tickets:
            line.end(tickets.pop(0), now, {"success": True, "failure": False, "nothing": None}[what])
            while line.waiting and line.has_turn():
                line.waiting -= 1
                tickets.append(started(line, now))
        assert line.running <= 8
        assert 1 <= line.at_once <= 8
        assert line.running + line.waiting <= 20


def started(line: Line, now_s: float) -> int:
    ticket = line.start()
    line.begin(ticket, now_s)
    return ticket


def test_failures_leave_one_attempt_at_once_and_successes_bring_all_back() -> None:
    line, now = Line(16, 250, 1.0), 0.0
    for _ in range(3):
        line.end(started(line, now), now, False)
    assert line.at_once == 1
    for _ in range(200):
        line.end(started(line, now), now, True)
    assert line.at_once == 16


def test_nobody_waits_for_an_endpoint_that_does_not_answer() -> None:
    line = Line(16, 250, 1.0)
    for _ in range(4):
        assert line.place(0.0, again=False) == "run"
        started(line, 0.0)
    assert line.place(0.1, again=False) == "wait"
    line.waiting += 1
    assert line.place(5.0, again=False) == "full"
    assert line.place(5.0, again=True) == "full"


def test_a_quick_endpoint_takes_what_comes_at_once() -> None:
    line = Line(16, 250, 1.0)
    for _ in range(50):
        line.end(started(line, 0.0), 0.005, True)
    waits = 0
    while line.place(1.0, again=False) == "run":
        started(line, 1.0)
    while line.place(1.0, again=False) == "wait":
        line.waiting += 1
        waits += 1
    assert line.running + waits == 187  # three quarters of its room
    assert line.place(1.0, again=True) == "wait"
