"""What operators decided to do nothing about, also where it was decided before partitions were grown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from projections import drops
from projections.trail import At
from runtime.settings import Settings
from schemas import codec, ids
from schemas.lifecycle import Dropped, LetterOf
from schemas.records import Record
from schemas.topics import DELIVERIES_DEAD, EVENTS_REJECTED, LIFECYCLE

ENDPOINT = ids.endpoint_id(1, bytes(10))


def letter(number: int) -> LetterOf:
    return LetterOf(event_id=ids.event_id(number, bytes(10)), endpoint_id=ENDPOINT)


def dropped(generation: int, partition: int, offset: int, about: LetterOf | None, topic: str = DELIVERIES_DEAD) -> bytes:
    return codec.encode(
        Dropped(v=1, topic=topic, generation=generation, partition=partition, offset=offset, actor="a", at_ms=1, letter=about)
    )


def test_a_decision_about_a_letter_that_was_gone_when_partitions_grew_holds_for_its_delivery_and_for_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a partition of the second generation: one moved with its letter, two whose letters were gone, one of somewhere else."""
    values = [
        dropped(2, 3, 7, letter(1)), dropped(1, 0, 8, letter(2)), dropped(1, 3, 9, letter(3)), b"poison",
        dropped(2, 3, 5, None), dropped(2, 3, 6, None, EVENTS_REJECTED),
    ]  # fmt: skip

    def scan(_: Any, topic: str, partitions: Any, *__: Any) -> Iterator[tuple[At, Record]]:
        for number in partitions:
            yield from ((At(topic, number, offset), Record(offset, 1, b"", value, ())) for offset, value in enumerate(values))

    monkeypatch.setattr(drops, "scan", scan)
    monkeypatch.setattr(drops, "admin", lambda _: None)
    monkeypatch.setattr(drops, "generation", lambda _: 2)
    settings = cast(Settings, cast(Any, type("Fake", (), {"kafka": None})()))
    assert sorted(drops.drops(settings, DELIVERIES_DEAD, [3], lambda *_: None)) == [At(DELIVERIES_DEAD, 3, 5), At(DELIVERIES_DEAD, 3, 7)]
    assert sorted(drops.drops(settings, LIFECYCLE, [3], lambda *_: None)) == []
    found = drops.dropped_letters(settings, 3, lambda *_: None)
    assert found == {ENDPOINT: [(letter(number).event_id, "") for number in (1, 2, 3)]}
