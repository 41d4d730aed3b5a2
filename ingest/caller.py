"""One request on its way through admission: who asks, until when, and what becomes of a step that does not come back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from access.auth import Principal
from access.http import Context
from access.limits import Allowance
from runtime.deadlines import Deadlines, Within
from runtime.metrics import RESERVATIONS
from runtime.redis import RedisUnavailable
from schemas.problems import UNAVAILABLE, ProblemError


class Caller:
    """Who asks, for one request. `allowance` is there once the request was counted. `changes`: the epoch at which the key was valid."""

    def __init__(
        self,
        principal: Principal,
        key: str,
        address: str | None,
        changes: int,
        context: Context,
        deadlines: Deadlines,
        deadline_s: float,
    ) -> None:
        self.principal = principal
        self.key = key
        self.address = address
        self.changes = changes
        self.context = context
        #: Event-loop time at which the request has to be answered.
        self.deadline_s = deadline_s
        self._deadlines = deadlines
        self._task = asyncio.current_task()
        #: The question to the quota, once it was asked.
        self.counting: asyncio.Future[Allowance] | None = None
        self.allowance: Allowance | None = None
        #: What came of looking the key up again, for all that follows.
        self.refusal: ProblemError | None = None

    @cached_property
    def looking(self) -> asyncio.Lock:
        """Held while the key is looked up again."""
        return asyncio.Lock()

    def within(self, problem: Callable[[], ProblemError]) -> Within:
        """Bound a step of the request's own task by its deadline; running out of it is `problem`."""
        return Within(self._deadlines, self.deadline_s, problem, self._task)

    def item_within(self, problem: Callable[[], ProblemError]) -> Within:
        """The same for a step of another task: an item of a batch."""
        return Within(self._deadlines, self.deadline_s, problem)


async def reached(trip: Awaitable[Any]) -> None:
    try:
        await trip
    except RedisUnavailable:
        RESERVATIONS.tally["not_told"] += 1


def too_slow_to_check() -> ProblemError:
    return ProblemError(
        UNAVAILABLE, "The event could not be checked in time; nothing was appended. Send it again.", headers={"Retry-After": "2"}
    )
