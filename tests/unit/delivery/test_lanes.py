"""A lane holds no more than it may, in records and in bytes, and always goes on."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.lanes import Lane
from delivery.watermark import Watermark
from schemas.records import Record

MEBIBYTE = 1_048_576


class Partition:
    """What the lane asks of the consumer."""

    def __init__(self, *, in_flight_max: int = 1_000, bytes_in_flight_max: int = 32 * MEBIBYTE) -> None:
        self.paused = False
        self.lane = Lane(
            "t", 0, Watermark(0), in_flight_max, bytes_in_flight_max=bytes_in_flight_max, pause=self._pause, resume=self._resume
        )
        self._offsets = count()

    def _pause(self) -> None:
        assert not self.paused
        self.paused = True

    def _resume(self) -> None:
        assert self.paused
        self.paused = False

    def add(self, *sizes: int) -> None:
        self.lane.add([Record(next(self._offsets), 0, b"k", bytes(size), ()) for size in sizes])

    def take(self, count_max: int = 1_000) -> list[int]:
        taken = [record.offset for record in self.lane.take(count_max)]
        for offset in taken:
            self.lane.watermark.start(offset)
        return taken


def test_few_large_records_pause_a_partition_and_it_is_resumed_when_they_are_taken() -> None:
    one = Partition()
    for _ in range(8):
        one.add(MEBIBYTE // 4)
        assert not one.paused
    one.add(MEBIBYTE // 4)
    assert one.paused
    assert one.take(7) == list(range(7))
    assert one.paused, "two left, which are no less than the lower bound"
    assert one.take(1) == [7]
    assert not one.paused


def test_what_is_under_way_is_bounded_in_bytes_and_a_record_larger_than_all_goes_alone() -> None:
    one = Partition(bytes_in_flight_max=MEBIBYTE)
    one.add(3 * MEBIBYTE, 10, MEBIBYTE, 10)
    assert one.take() == [0]
    assert one.take() == []
    one.lane.done(0)
    assert one.take() == [1, 2], "up to the one that fills it"
    assert one.take() == []
    one.lane.done(2)
    assert one.take() == [3]


@given(
    sizes=st.lists(st.sampled_from([0, 1, 1_000, MEBIBYTE]), min_size=1, max_size=60),
    steps=st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=80),
)
def test_every_record_is_taken_once_in_order_whatever_its_size(sizes: list[int], steps: list[tuple[int, bool]]) -> None:
    one = Partition(in_flight_max=5, bytes_in_flight_max=2 * MEBIBYTE)
    one.add(*sizes)
    seen: list[int] = []
    open_ones: list[int] = []
    for count_max, newest_first in [*steps, *[(20, False)] * len(sizes)]:
        taken = one.take(count_max)
        seen += taken
        open_ones += taken
        assert len(open_ones) <= 5
        assert sum(sizes[offset] for offset in open_ones[:-1]) <= 2 * MEBIBYTE + MEBIBYTE
        if open_ones:
            one.lane.done(open_ones.pop(-1 if newest_first else 0))
    while open_ones:
        one.lane.done(open_ones.pop())
    seen += one.take()
    assert seen == list(range(len(sizes)))
    assert not one.paused


@pytest.mark.parametrize("paused", [True, False])
def test_a_record_without_a_value_has_no_bytes(paused: bool) -> None:
    one = Partition()
    one.lane.add([Record(offset, 0, None, None, ()) for offset in range(401 if paused else 400)])
    assert one.paused is paused
