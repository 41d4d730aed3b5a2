"""The body of the projection agents: one batch after the other is finished, and the next is prepared meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from processors import agents
from processors.agents import consume_ahead
from tests.unit.processors.test_consume import Died, Stream, app


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reasons: list[str] = []

    def die(reason: str) -> None:
        reasons.append(reason)
        raise Died

    monkeypatch.setattr(agents, "die", die)
    return reasons


def prepared(_tp: Any, batch: Any) -> Any:
    return batch[0]


async def test_the_next_batch_is_prepared_while_one_is_finished_and_none_is_finished_before_its_turn() -> None:
    happened: list[str] = []
    prepared_of = [asyncio.Event() for _ in range(4)]

    def prepare(_tp: Any, batch: Any) -> int:
        happened.append(f"prepared {batch[0]}")
        prepared_of[batch[0]].set()
        return int(batch[0])

    async def finish(_tp: Any, number: int, _current: Any) -> bool:
        happened.append(f"begun {number}")
        if number < 3:
            await prepared_of[number + 1].wait()  # without looking ahead it would wait for ever
        happened.append(f"finished {number}")
        return True

    stream = Stream(1, 2, 3)
    async with asyncio.timeout(5):
        await consume_ahead(app(), stream, prepare, finish)
    assert stream.acked == [1, 2, 3]
    in_turn = [f"{step} {n}" for n in (1, 2, 3) for step in ("begun", "finished")]
    assert [one for one in happened if not one.startswith("prepared")] == in_turn


@pytest.mark.parametrize("where", ["prepare", "finish"])
@pytest.mark.parametrize("error", [ValueError("poison"), SystemExit(1), MemoryError()], ids=lambda error: type(error).__name__)
async def test_any_exception_ends_the_process_with_its_place(error: BaseException, where: str, died: list[str]) -> None:
    def prepare(_tp: Any, batch: Any) -> Any:
        if (where, batch[0]) == ("prepare", 2):
            raise error
        return batch[0]

    async def finish(_tp: Any, number: Any, _current: Any) -> bool:
        if (where, number) == ("finish", 2):
            raise error
        return True

    stream = Stream(1, 2, 3)
    with pytest.raises(Died):
        await consume_ahead(app(), stream, prepare, finish)
    assert died == [f"dedup: events.ingested[0] up to offset 2: {error!r}"]
    assert 2 not in stream.acked
    assert 3 not in stream.acked


class Endless(Stream):
    """A stream on which nothing more comes."""

    async def events(self) -> AsyncIterator[Any]:
        async for event in super().events():
            yield event
        await asyncio.Event().wait()


async def test_a_cancelled_agent_takes_along_what_it_was_about_to_finish(died: list[str]) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def finish(_tp: Any, _prepared: Any, _current: Any) -> bool:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return True

    stream = Endless(1)
    agent = asyncio.create_task(consume_ahead(app(), stream, prepared, finish))
    await asyncio.wait_for(begun.wait(), 5)
    agent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await agent
    assert ended.is_set()
    assert (stream.acked, died) == ([], [])


async def test_the_last_batch_is_finished_although_no_other_comes() -> None:
    finished = asyncio.Event()

    async def finish(_tp: Any, _prepared: Any, _current: Any) -> bool:
        finished.set()
        return True

    agent = asyncio.create_task(consume_ahead(app(), Endless(1), prepared, finish))
    await asyncio.wait_for(finished.wait(), 5)
    agent.cancel()
    await asyncio.gather(agent, return_exceptions=True)


async def test_what_was_not_done_or_is_no_longer_ours_is_not_acknowledged() -> None:
    async def undone(_tp: Any, _prepared: Any, _current: Any) -> bool:
        return False

    async def done(_tp: Any, _prepared: Any, _current: Any) -> bool:
        return True

    for stream, given, finish in ((Stream(1, 2), app(), undone), (Stream(1, 2), app(current=False), done)):
        await consume_ahead(given, stream, prepared, finish)
        assert stream.acked == []
