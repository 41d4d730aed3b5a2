"""Positions of FIFO endpoints: what counts of two, where a new owner begins, what there is to wait for when a schedule is used up."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec import Raw
from msgspec.structs import replace

from delivery import fifo_places, policy
from delivery.fifo_queue import Item, Queue, Room
from schemas import codec, ids, keys
from schemas.deliveries import FifoPosition, PastAttempt, Planned, RetryTask
from schemas.events import Ingested

ORGANIZATION = ids.organization_id(1, bytes(10))
ENDPOINT, OTHER = ids.endpoint_id(1, bytes(10)), ids.endpoint_id(2, bytes(10))


def event(number: int) -> Ingested:
    return Ingested(
        v=1, id=ids.event_id(number, bytes(10)), organization=ORGANIZATION, mode="live", type="t", received_at_ms=1,
        fingerprint=keys.fingerprint("t", None, b"1"), payload=Raw(b"1"),
    )  # fmt: skip


def planned(number: int, *, fifo: bool = True) -> Planned:
    return Planned(
        v=1, event_id=event(number).id, organization=ORGANIZATION, mode="live", accepted_offset=number,
        endpoint_ids=[OTHER], fifo=[ENDPOINT] if fifo else [],
    )  # fmt: skip


def history() -> list[FifoPosition]:
    """The positions of one endpoint as they come about: events at 5 and 9, the second of which fails once."""
    start = fifo_places.first(planned(5), ENDPOINT, 20)
    after_first = fifo_places.done(start, 20, 5)
    task = RetryTask(
        v=1, organization=ORGANIZATION, mode="live", event_id=event(9).id, endpoint_id=ENDPOINT, attempt=2, not_before_ms=9_000,
        history=[PastAttempt(attempt=1, started_at_ms=1, status=500)], event=Raw(b"{}"),
    )  # fmt: skip
    waiting = fifo_places.failed(after_first, task, blocked=False)
    after_second = fifo_places.done(waiting, 26, 9)
    return [start, after_first, waiting, after_second, fifo_places.passed(after_second, 40)]


def test_a_position_says_where_to_go_on_and_comes_back_from_its_bytes() -> None:
    start, after_first, waiting, after_second, passed = history()
    assert (start.journal_offset, start.accepted_offset) == (20, 4)
    assert (after_first.journal_offset, after_first.accepted_offset) == (21, 5)
    assert (waiting.event_id, waiting.attempt, waiting.not_before_ms, len(waiting.history)) == (event(9).id, 2, 9_000, 1)
    assert (after_second.event_id, after_second.attempt, after_second.history) == (None, 1, [])
    assert (passed.journal_offset, passed.accepted_offset) == (40, 9)
    for position in history():
        assert codec.fifo_position.decode(codec.encode(position)) == position
    assert fifo_places.passed(passed, 30) == passed, "a position moved back"


def test_whatever_order_positions_are_written_in_the_highest_counts() -> None:
    """What a worker that stood still writes late moves nothing back."""
    for order in permutations(history()):
        found = fifo_places.Found()
        for position in order:
            found.add_position(ENDPOINT, position)
        assert [position for position, _ in found.starts()] == [history()[-1]]


@pytest.mark.parametrize(
    ("journal_offset", "plans", "behind"),
    [
        (40, {}, False),  # nothing was planned since
        (40, {40: True}, True),
        (40, {39: True, 41: False}, False),  # planned before, or for others
        (29, {}, True),  # older than what was read
    ],
)
def test_a_new_owner_reads_on_only_where_there_may_be_something(journal_offset: int, plans: dict[int, bool], behind: bool) -> None:
    found = fifo_places.Found()
    found.begin, found.end = 30, 50
    position = replace(history()[-1], journal_offset=journal_offset)
    found.add_position(ENDPOINT, position)
    for offset, fifo in plans.items():
        found.add_plan(offset, planned(offset, fifo=fifo))
    assert list(found.starts()) == [(position, behind)]


def test_without_a_position_an_endpoint_begins_at_its_first_plan_and_one_that_is_gone_nowhere() -> None:
    found = fifo_places.Found()
    found.add_plan(20, planned(5))
    found.add_plan(26, planned(9))
    assert list(found.starts()) == [(fifo_places.first(planned(5), ENDPOINT, 20), True)]
    gone = fifo_places.Found()
    for position in (*history(), None):
        gone.add_position(ENDPOINT, position)
    assert list(gone.starts()) == []


def test_a_queue_without_room_keeps_what_follows_without_a_gap_and_gives_all_bytes_back() -> None:
    room = Room(250)
    queue = Queue(room, behind=False)
    for number in range(4):
        queue.offer(Item(number, number, event(number), bytes(100), ()))
    assert (len(queue), queue.behind) == (2, True), "an event was taken after one that was left out"
    queue.pop()
    queue.offer(Item(4, 4, event(4), bytes(1), ()))
    assert len(queue) == 1
    queue.pop()
    queue.fill(Item(2, 2, event(2), bytes(10_000), ()))  # the next one always fits, else nothing would ever go on
    queue.drop()
    assert room.take(250)
    assert not room.take(1)


def test_one_that_blocks_waits_for_its_last_pause_and_never_less_than_is_set() -> None:
    assert policy.blocked(2, 1_000, (1, 5), 600).not_before_ms == 1_000 + 5_000  # 410 while the schedule still has pauses
    assert policy.blocked(3, 1_000, (1, 5), 600).not_before_ms == 1_000 + 600_000
    assert policy.blocked(3, 1_000, (1, 3_600), 600).not_before_ms == 1_000 + 3_600_000
    later = policy.blocked(999, 0, (), 600, retry_after="900", jitter=0.1)
    assert (later.attempt, later.not_before_ms) == (1_000, 900_000 + 60_000)
