"""A process with a limiter of its own for `test_limits`: reads lines of {now, organization, limit, takes}, answers what was granted."""

from __future__ import annotations

import asyncio
import json
import sys

from access.auth import Principal
from access.limits import Limiter
from runtime.clock import SYSTEM
from runtime.redis import RedisTick
from runtime.settings import RedisSettings
from schemas.ids import OrganizationId


async def main() -> None:
    now_ms = 0
    redis = RedisSettings(url=sys.argv[1], timeout_s=5.0)
    tick = RedisTick(redis, SYSTEM, watch="test:epoch", on_watched=lambda _: None)
    limiter = Limiter(tick, SYSTEM, now_ms=lambda: now_ms)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        now_ms = asked["now"]
        principal = Principal("key", OrganizationId(asked["organization"]), "live", (), "free", asked["limit"], None)
        answers = await asyncio.gather(*(limiter.take(principal, count) for count in asked["takes"]))
        print(json.dumps([answer.granted for answer in answers]), flush=True)
    await tick.close()


asyncio.run(main())
