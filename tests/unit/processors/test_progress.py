from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from processors.progress import Progress

SOURCE = TP("events.ingested", 0)


def app(*, rebalancing: bool = False, expected: int = 5, end: int = 5, delivered: bool = False, recovered: int = 0) -> Any:
    consumer = SimpleNamespace(
        expected={SOURCE: expected}, end_of=lambda _: end, has_delivered=lambda _: delivered, _thread=SimpleNamespace(_consumer=None)
    )
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


def test_a_start_that_never_ends_is_noticed_and_one_that_recovers_a_table_is_not() -> None:
    progress = Progress(20)
    assert progress.check(app(), 0, started=False) is None
    assert progress.check(app(recovered=1), 30, started=False) is None
    assert progress.check(app(recovered=1), 49, started=False) is None
    assert "the start" in (progress.check(app(recovered=1), 51, started=False) or "")


async def test_a_member_whose_coordination_ended_is_noticed_at_once() -> None:
    """Seen: aiokafka found no broker in its first metadata, its coordination task ended, and the process waited for ever."""

    async def ends() -> None:
        raise AssertionError("Did we not perform bootstrap?")

    async def goes_on() -> None:
        await asyncio.Event().wait()

    for work, expected in ((ends(), "bootstrap"), (goes_on(), "")):
        task = asyncio.create_task(work)
        await asyncio.wait((task,), timeout=0.01)
        one = app()
        one.consumer._thread._consumer = SimpleNamespace(_coordinator=SimpleNamespace(_coordination_task=task))
        told = Progress(20).check(one, 0, started=False)
        assert (told is None) if not expected else (expected in (told or ""))
        task.cancel()
        await asyncio.wait((task,))
