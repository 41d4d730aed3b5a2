"""What the reader makes of what a consumer gives it, in whatever runs it comes."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from projections import log_reader
from projections.log_reader import LogError, LogReader, Range
from runtime.settings import KafkaSettings


class Message:
    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self._at = (topic, partition, offset)

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self._at[0]

    def partition(self) -> int:
        return self._at[1]

    def offset(self) -> int:
        return self._at[2]

    def timestamp(self) -> tuple[int, int]:
        return (2, 7)

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"%d" % self._at[2]

    def __len__(self) -> int:
        return 1


class Consumer:
    """Gives `coming` in this order, as many as it is asked for. The real one waits for the rest of them where it has fewer."""

    coming: deque[Message]

    def __init__(self, *_: Any, **__: Any) -> None:
        self.paused: list[Any] = []

    def assign(self, _: Any) -> None: ...

    def resume(self, _: Any) -> None: ...

    def pause(self, assigned: Any) -> None:
        self.paused.append(assigned)

    def consume(self, count: int, _timeout_s: float) -> list[Message]:
        assert count <= len(self.coming), "asked for more than there is: this waits"
        return [self.coming.popleft() for _ in range(count)]


def reader_of(monkeypatch: pytest.MonkeyPatch, *coming: tuple[str, int, int], batch: int = 100) -> LogReader:
    Consumer.coming = deque(Message(*one) for one in coming)
    monkeypatch.setattr(log_reader, "Consumer", Consumer)
    return LogReader(KafkaSettings(), batch_records_max=batch, stall_timeout_s=1)


def read(reader: LogReader, ranges: dict[tuple[str, int], Range]) -> list[dict[tuple[str, int], list[int]]]:
    return [{chunk.place: [record.offset for record in chunk.records] for chunk in batch} for batch in reader.read(ranges)]


def test_records_of_several_partitions_in_turns_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [("t", 0, 4), ("t", 1, 0), ("t", 0, 5), ("u", 0, 0), ("t", 0, 6), ("t", 1, 1)]
    reader = reader_of(monkeypatch, *turns)
    assert read(reader, {("t", 0): Range(4, 7), ("t", 1): Range(0, 2), ("u", 0): Range(0, 1)}) == [
        {("t", 0): [4, 5, 6], ("t", 1): [0, 1], ("u", 0): [0]}
    ]


def test_it_asks_for_no_more_than_is_missing_and_never_for_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(monkeypatch, *(("t", 0, offset) for offset in range(7)), batch=3)
    assert read(reader, {("t", 0): Range(0, 7)}) == [{("t", 0): [0, 1, 2]}, {("t", 0): [3, 4, 5]}, {("t", 0): [6]}]


def test_what_comes_from_beyond_a_range_is_kept_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(monkeypatch, ("t", 0, 0), ("t", 1, 0), ("t", 1, 1), ("t", 0, 1))
    assert read(reader, {("t", 0): Range(0, 2), ("t", 1): Range(0, 0)}) == [{("t", 0): [0, 1]}]
    assert read(reader, {("t", 0): Range(2, 2), ("t", 1): Range(0, 2)}) == [{("t", 1): [0, 1]}]
    assert not Consumer.coming


def test_a_hole_between_two_turns_is_told_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(monkeypatch, ("t", 0, 0), ("t", 1, 0), ("t", 0, 2))
    with pytest.raises(LogError, match=r"t\[0\] has a hole: offset 1 is not there, the next is 2"):
        read(reader, {("t", 0): Range(0, 2), ("t", 1): Range(0, 1)})
