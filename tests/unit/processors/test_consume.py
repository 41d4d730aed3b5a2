"""The body of every agent: what it acknowledges, and that no exception leaves it (Faust would acknowledge the event and lose it)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from processors import agents
from processors.agents import consume

PLACE = TP("events.ingested", 0)


class Died(BaseException):
    """What the end of the process is here."""


class Stream:
    """Faust's stream over the given offsets."""

    def __init__(self, *offsets: int) -> None:
        self._offsets = offsets
        self.acked: list[int] = []

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Any]:
        for offset in self._offsets:
            yield SimpleNamespace(message=SimpleNamespace(tp=PLACE, offset=offset), value=[offset])

    async def ack(self, event: Any) -> None:
        self.acked.append(event.message.offset)


def app(current: bool = True) -> Any:
    consumer = SimpleNamespace(is_current=lambda _tp, _batch: current)
    return SimpleNamespace(conf=SimpleNamespace(id="dedup"), consumer=consumer, should_stop=False)


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reasons: list[str] = []

    def die(reason: str) -> None:
        reasons.append(reason)
        raise Died

    monkeypatch.setattr(agents, "die", die)
    return reasons


@pytest.mark.parametrize("error", [ValueError("poison"), KeyError("k"), SystemExit(1), MemoryError(), AssertionError()])
async def test_any_exception_ends_the_process_with_its_place_and_acknowledges_nothing(error: BaseException, died: list[str]) -> None:
    stream = Stream(1, 2, 3)

    async def handle(_tp: Any, batch: Any, _current: Any) -> bool:
        if batch[0] == 2:
            raise error
        return True

    with pytest.raises(Died):
        await consume(app(), stream, handle)
    assert stream.acked == [1]
    assert died == [f"dedup: events.ingested[0] up to offset 2: {error!r}"]


async def test_an_acknowledgement_that_fails_ends_the_process_too(died: list[str]) -> None:
    class Refusing(Stream):
        async def ack(self, event: Any) -> None:
            raise KeyError(event.message.offset)

    async def handle(_tp: Any, _batch: Any, _current: Any) -> bool:
        return True

    with pytest.raises(Died):
        await consume(app(), Refusing(1, 2), handle)
    assert died == ["dedup: events.ingested[0] up to offset 1: KeyError(1)"]


async def test_a_cancelled_agent_acknowledges_nothing_and_lives(died: list[str]) -> None:
    stream = Stream(1)

    async def handle(_tp: Any, _batch: Any, _current: Any) -> bool:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await consume(app(), stream, handle)
    assert (stream.acked, died) == ([], [])


async def test_what_was_not_done_or_is_no_longer_ours_is_not_acknowledged(died: list[str]) -> None:
    async def undone(_tp: Any, _batch: Any, _current: Any) -> bool:
        return False

    async def done(_tp: Any, _batch: Any, _current: Any) -> bool:
        return True

    for stream, given, handle in ((Stream(1, 2), app(), undone), (Stream(1, 2), app(current=False), done)):
        await consume(given, stream, handle)
        assert stream.acked == []
    assert died == []
