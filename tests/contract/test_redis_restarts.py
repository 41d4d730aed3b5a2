"""The tick on a Redis that is restarted under it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.clock import SYSTEM
from runtime.redis import RedisTick
from runtime.settings import RedisSettings
from triggers.devstack.ports import free_ports
from triggers.devstack.redis import Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """One of the test's own, which it may kill."""
    server = Redis(tmp_path / "redis", port=free_ports(1)[0], password="secret", progress=lambda _: None)
    server.bring_up()
    yield server
    server.stop()


async def test_connections_from_before_a_restart_cost_no_round_trip(redis: Redis) -> None:
    settings = RedisSettings.model_validate({"url": redis.url, "timeout_s": 5, "retry_after_s": 60})
    tick = RedisTick(settings, SYSTEM, watch="test:epoch", on_watched=lambda _: None)
    try:
        await _at_once(tick, 5)
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.bring_up)
        await _at_once(tick, 5)
        assert tick.failures == 0, "one failure, and Redis would have been left alone for a minute"
    finally:
        await tick.close()


async def _at_once(tick: RedisTick, round_trips: int) -> None:
    """So many round trips under way together, each on a connection of its own."""
    asked = []
    for _ in range(round_trips):
        asked.append(tick.execute("PING"))
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [b"PONG"] * round_trips
