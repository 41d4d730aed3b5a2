"""One request on its way through admission: who asks, until when, and what becomes of a step that does not come back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from access.auth import Principal
from access.http import Context
from access.limits import Allowance
from runtime.metrics import RESERVATIONS
from runtime.redis import RedisUnavailable
from schemas.problems import UNAVAILABLE, ProblemError

T = TypeVar("T")


class Caller:
    """Who asks, for one request. `allowance` is there once the request was counted. `changes`: the epoch at which the key was valid."""

    def __init__(self, principal: Principal, key: str, address: str | None, changes: int, context: Context, deadline_s: float) -> None:
        self.principal = principal
        self.key = key
        self.address = address
        self.changes = changes
        self.context = context
        #: Event-loop time at which the request has to be answered.
        self.deadline_s = deadline_s
        self.allowance: Allowance | None = None
        #: Held while the key is looked up again; `refusal` is what came of it for all that follows.
        self.looking = asyncio.Lock()
        self.refusal: ProblemError | None = None


async def without_redis(trip: Awaitable[T]) -> T | None:
    """The answer of a Redis round trip; None without Redis."""
    try:
        return await trip
    except RedisUnavailable:
        return None


async def told(trip: Awaitable[Any]) -> None:
    try:
        await trip
    except RedisUnavailable:
        RESERVATIONS.labels("not_told").inc()


class within:
    """Bound a step by the request's deadline (loop time); running out of it is `problem`.

    A class, because a generator made into a context manager costs three times as much, three times an event.
    """

    __slots__ = ("_problem", "_timeout")

    def __init__(self, deadline_s: float, problem: Callable[[], ProblemError]) -> None:
        self._timeout = asyncio.timeout_at(deadline_s)
        self._problem = problem

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise self._problem() from late
        if isinstance(error, TimeoutError):
            raise self._problem() from error


def too_slow_to_check() -> ProblemError:
    return ProblemError(
        UNAVAILABLE, "The event could not be checked in time; nothing was appended. Send it again.", headers={"Retry-After": "2"}
    )
