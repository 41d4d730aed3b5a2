"""What one connection to a real Redis carries: who shares a round trip, and that no answer goes to somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from runtime.clock import SYSTEM
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import RedisSettings, Settings

WATCHED = "test:trips"


class Counted(RedisTick):
    """Counts round trips, by the key that each of them reads."""

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings, SYSTEM, watch=WATCHED, on_watched=self._on_trip)
        self.trips = 0

    def _on_trip(self, _: bytes | None) -> None:
        self.trips += 1


@pytest.fixture
async def tick(settings: Settings) -> AsyncIterator[Counted]:
    made = Counted(settings.redis.model_copy(update={"timeout_s": 0.4, "retry_after_s": 0.05}))
    yield made
    await made.close()


async def test_what_is_asked_during_a_round_trip_travels_together_in_the_next(tick: Counted, settings: Settings) -> None:
    await tick.execute("SET", "test:trip", "0")
    under_way = []
    for _ in range(2):
        under_way.append(tick.execute("INCR", "test:trip"))
        await asyncio.sleep(0)  # it is on its way
    later = [tick.execute("INCR", "test:trip") for _ in range(30)]
    await asyncio.sleep(0)
    later += [tick.execute("INCR", "test:trip") for _ in range(30)]
    assert await asyncio.gather(*under_way, *later) == list(range(1, 63))
    assert tick.trips == 4


async def test_a_late_answer_is_never_taken_for_that_of_another_question(tick: Counted, settings: Settings) -> None:
    await tick.execute("SET", "test:late", "early")
    await tick.execute("SET", "test:other", "right")
    busy = redis.Redis.from_url(settings.redis.url.get_secret_value())
    sleeping = asyncio.ensure_future(asyncio.to_thread(busy.execute_command, "DEBUG", "SLEEP", "0.9"))
    with pytest.raises(RedisUnavailable):
        while True:
            await tick.execute("GET", "test:late")
    answers: list[object] = []
    async with asyncio.timeout(30):
        while not sleeping.done() or b"right" not in answers:
            answers += await asyncio.gather(tick.execute("GET", "test:other"), return_exceptions=True)
            await asyncio.sleep(0.02)
    busy.close()
    assert {answer for answer in answers if not isinstance(answer, RedisUnavailable)} == {b"right"}


async def test_the_error_of_one_command_is_that_commands_alone(tick: Counted) -> None:
    await tick.execute("SET", "test:text", "no number")
    answers = await asyncio.gather(tick.execute("INCR", "test:text"), tick.execute("GET", "test:text"), return_exceptions=True)
    assert isinstance(answers[0], RedisUnavailable)
    assert answers[1] == b"no number"
    assert tick.available


async def test_whoever_waits_when_it_is_closed_is_told_so(tick: Counted) -> None:
    waiting = [tick.execute("PING") for _ in range(3)]
    await asyncio.sleep(0)
    waiting.append(tick.execute("PING"))
    await tick.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, RedisUnavailable) for answer in answers)
