from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from processors.progress import Progress

SOURCE = TP("events.ingested", 0)


def app(*, rebalancing: bool = False, expected: int = 5, end: int = 5, delivered: bool = False, recovered: int = 0) -> Any:
    consumer = SimpleNamespace(expected={SOURCE: expected}, end_of=lambda _: end, has_delivered=lambda _: delivered)
    recovery = SimpleNamespace(active_offsets={SOURCE: recovered}, active_highwaters={SOURCE: 9})
    return SimpleNamespace(
        rebalancing=rebalancing, in_recovery=False, consumer=consumer, consumer_generation_id=1, tables=SimpleNamespace(recovery=recovery)
    )


def test_a_recovery_that_stands_still_is_noticed_and_one_that_goes_on_is_not() -> None:
    progress = Progress(20)
    assert progress.check(app(rebalancing=True), 0) is None
    assert progress.check(app(rebalancing=True), 20) is None
    assert "recovery" in (progress.check(app(rebalancing=True), 20.1) or "")
    assert progress.check(app(rebalancing=True, recovered=1), 40) is None
    assert progress.check(app(rebalancing=True, recovered=2), 80) is None


def test_records_that_nobody_is_given_are_noticed() -> None:
    progress = Progress(20)
    assert progress.check(app(end=9), 0) is None
    assert "events.ingested[0]" in (progress.check(app(end=9), 21) or "")


def test_having_nothing_to_do_or_an_agent_that_waits_is_no_stall() -> None:
    progress = Progress(20)
    for now_s in (0, 100, 1_000):
        assert progress.check(app(), now_s) is None
        assert progress.check(app(end=9, delivered=True), now_s) is None
    assert progress.check(app(end=9), 1_001) is None
    assert progress.check(app(end=9), 1_022) is not None
