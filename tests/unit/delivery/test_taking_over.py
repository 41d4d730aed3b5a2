"""A take-over that is told to stop: given up where it stands, and where a broker holds it, left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from delivery import consumer
from delivery.consumer import ConsumerThread
from runtime.lifecycle import StallGuard
from runtime.settings import Settings
from schemas.topics import EVENTS_ACCEPTED

PLACE = TopicPartition(EVENTS_ACCEPTED, 0)


class Left(BaseException):
    """What the end of the process is here."""


class Taking:
    """An owner whose tails are read until it is told to stop."""

    def __init__(self, *, owns_nothing: bool) -> None:
        self.reading = asyncio.Event()
        self.taken: list[Any] = []
        self._owns_nothing = owns_nothing
        self._loop = asyncio.get_running_loop()

    def owns_nothing(self) -> bool:
        return self._owns_nothing

    def read_tails(self, _partitions: Any, _committed: Any, told_to_stop: Callable[[], bool]) -> None:
        self._loop.call_soon_threadsafe(self.reading.set)
        while not told_to_stop():
            pass

    async def assigned(self, committed: Sequence[TopicPartition], _tails: Any) -> None:
        self.taken.append(committed)


class Client:
    def __init__(self) -> None:
        self.assigned: list[Any] = []

    def committed(self, places: Any, timeout: float) -> Any:
        return places

    def incremental_assign(self, places: Any) -> None:
        self.assigned.append(places)


async def taking_over(owner: Taking, monkeypatch: pytest.MonkeyPatch) -> tuple[ConsumerThread, asyncio.Future[None], Client]:
    def leave() -> None:
        raise Left

    monkeypatch.setattr(consumer, "leave", leave)
    thread, client = ConsumerThread(Settings(), [EVENTS_ACCEPTED], cast(Any, owner), StallGuard(60)), Client()
    monkeypatch.setattr(thread, "_refuse_unread", lambda _: None)
    thread._thread = cast(Any, SimpleNamespace(join=lambda: None))
    taking = asyncio.ensure_future(asyncio.to_thread(thread._on_assign, cast(Consumer, client), [PLACE]))
    await asyncio.wait_for(owner.reading.wait(), 5)
    return thread, taking, client


async def test_a_worker_that_owns_nothing_leaves_in_the_middle_of_a_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, taking, _ = await taking_over(Taking(owns_nothing=True), monkeypatch)
    with pytest.raises(Left):
        await thread.stop()
    await asyncio.wait_for(taking, 5)


async def test_a_worker_that_owns_others_gives_the_take_over_up_and_lets_them_end(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Taking(owns_nothing=False)
    thread, taking, client = await taking_over(owner, monkeypatch)
    await thread.stop()
    await asyncio.wait_for(taking, 5)
    assert owner.taken == []
    assert len(client.assigned) == 1, "what it will be told to give back"
    assert not thread._taking_over.is_set()
