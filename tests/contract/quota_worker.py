"""A process with a limiter of its own for `test_quota_processes`: reads lines of {now, organization, limit, turns}, answers each take.

`now` is its clock, Redis's time and its own. A turn is a list of takes that are asked for in one event-loop tick; turns follow each other.
The answer has [granted, reset_s] for each take, and whether Redis was there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import structlog

from access.auth import Principal
from access.limits import Limiter
from runtime.clock import SYSTEM
from runtime.redis import RedisTick
from runtime.settings import RedisSettings
from schemas.ids import OrganizationId


class Told:
    """A clock that is told the time."""

    ms = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    clock = Told()
    redis = RedisSettings.model_validate({"url": sys.argv[1], "timeout_s": 5.0, "retry_after_s": 0.01})
    tick = RedisTick(redis, SYSTEM, watch="test:epoch", on_watched=lambda _: None)
    limiter = Limiter(tick, clock, now_ms=clock.now_ms)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked: dict[str, Any] = json.loads(line)
        clock.ms = asked["now"]
        principal = Principal("key", OrganizationId(asked["organization"]), "live", (), "free", asked["limit"], None)
        before = tick.failures
        takes = [await asyncio.gather(*(limiter.take(principal, count) for count in turn)) for turn in asked["turns"]]
        told = [[answer.granted, answer.reset_s] for turn in takes for answer in turn]
        print(json.dumps({"takes": told, "redis": tick.available and tick.failures == before}), flush=True)
    await tick.close()


asyncio.run(main())
