"""The gate in front of each endpoint: circuit breaker, rate and line together decide whether a delivery is attempted now or put off.

All state is in the memory of the owner of the endpoint's organization, and learned again by the next one: closed, few at once, no turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import Final, Literal, NamedTuple

from delivery.breaker import Breaker, Permit, Rules
from delivery.endpoints import Endpoint
from delivery.lines import Line
from delivery.pace import Pace
from runtime.clock import Clock
from runtime.settings import DeliverySettings
from schemas.ids import EndpointId

#: Gates kept; above it those at rest are dropped, which forgets nothing that would not be learned again. Where most are not at rest, they
#: are looked through again when there are so many times as many.
_GATES_MAX: Final = 10_000
_GROWTH: Final = 1.25
#: An endpoint as it was read may be this much older than what was last written down about it.
_NOTED_AFTER_MS: Final = 5_000

#: `open`: the breaker; `rate`: its turn comes later; `full`: no room in its line; `slow`: no place left for slow endpoints; `local`: our
#: outage; `paused`: the replay it is of.
Why = Literal["open", "rate", "full", "slow", "local", "paused"]


class Admitted(NamedTuple):
    """Must be given back with `Gate.leave`."""

    ticket: int
    permit: Permit


class Refused(NamedTuple):
    """`until_ms` is known for `open` and `rate`; `turn` names the turn at that time."""

    why: Why
    until_ms: int | None = None
    turn: str | None = None


class Verdict(NamedTuple):
    """What an attempt changed."""

    opened: bool = False
    closed: bool = False


class Gate:
    """One endpoint's. `failing_since_ms`: the first failure after its last success; `noted`: whether Postgres has it, last written
    at `noted_at_ms`; `announced`: whether its organization was told (see `delivery.health`), or may have been by an earlier owner
    (`inherited`).
    """

    def __init__(self, settings: DeliverySettings, clock: Clock, name: str, endpoint: Endpoint) -> None:
        self._settings = settings
        self._clock = clock
        self._name = name
        self._paces = count(1)
        self._pace: Pace | None = None
        self._breaker = Breaker(rules(settings))
        self._line = Line(settings.endpoint_concurrency, settings.endpoint_in_flight_max, settings.endpoint_wait_s)
        #: Who waits, and the loop time until which it does; one timer for the first of them.
        self._queue: deque[tuple[asyncio.Future[int | None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.failing_since_ms = endpoint.failing_since_ms
        self.announced = self.noted = self.inherited = endpoint.failing_since_ms is not None
        self.noted_at_ms: int | None = None
        self.configure(endpoint)

    @property
    def at_rest(self) -> bool:
        """What Postgres has is read again by the next gate; an open breaker is remembered until its time is over."""
        now_ms = self._clock.now_ms()
        return (
            self._line.idle
            and self._breaker.refused_until(now_ms) is None
            and (self.failing_since_ms is None or self.noted)
            and (self._pace is None or self._pace.rests(now_ms))
        )

    @property
    def is_slow(self) -> bool:
        return self._line.takes_s(self._clock.monotonic_s()) > self._settings.slow_after_s

    def configure(self, endpoint: Endpoint) -> None:
        """The endpoint as it is now."""
        settled = self.noted_at_ms is None or self._clock.now_ms() - self.noted_at_ms > _NOTED_AFTER_MS
        if self.noted and settled and endpoint.failing_since_ms is None:  # somebody enabled it: as if it had never failed
            self._breaker = Breaker(rules(self._settings))
            self.failing_since_ms, self.noted_at_ms = None, None
            self.announced = self.noted = self.inherited = False
        at_once = endpoint.concurrency or self._settings.endpoint_concurrency
        if at_once != self._line.at_once_max:
            self._line.limit(at_once)
        if endpoint.rate_per_minute is None:
            self._pace = None
        elif self._pace is None or self._pace.rate_per_minute != endpoint.rate_per_minute:
            grace_ms = round(2000 * min(self._settings.delays_s))  # work comes back from a delay topic at most one smallest delay late
            self._pace = Pace(f"{self._name}.{next(self._paces)}", endpoint.rate_per_minute, grace_ms)

    async def enter(self, *, again: bool, turn: str | None = None, turn_ms: int = 0) -> Admitted | Refused:
        """Wait a bounded time for an attempt of one's own, or be told to come back. `again`: the work was put off before, with `turn`."""
        if refused := self._breaker_refuses():
            return refused
        now_ms = self._clock.now_ms()
        if self._pace is not None and not self._pace.holds(turn, turn_ms, now_ms):
            mine_ms = self._pace.take(now_ms)
            if mine_ms > now_ms:
                return Refused("rate", mine_ms, self._pace.name)
        ticket = await self._place(again=again)
        if ticket is None:
            return self._breaker_refuses() or Refused("full")
        permit = self._breaker.begin(self._clock.now_ms())
        if permit is None:  # it opened, or another became the probe, while this one waited
            self._end(ticket, None)
            return self._breaker_refuses() or Refused("full")
        return Admitted(ticket, permit)

    def free_at_ms(self) -> int:
        """When breaker and rate would let an attempt through; now or earlier: at once. For work that can wait where it is."""
        now_ms = self._clock.now_ms()
        refused = self._breaker_refuses()
        return max(now_ms if refused is None or refused.until_ms is None else refused.until_ms, self._pace.next_ms if self._pace else 0)

    def begin(self, admitted: Admitted) -> None:
        """The attempt begins now: until now it waited for the worker."""
        self._line.begin(admitted.ticket, self._clock.monotonic_s())

    def leave(self, admitted: Admitted, succeeded: bool | None) -> Verdict:
        """`succeeded` is None where nothing was learned about the endpoint."""
        now_ms, opened, closed = self._clock.now_ms(), False, False
        if succeeded is None:
            self._breaker.abandoned(admitted.permit)
        elif succeeded:
            closed = self._breaker.succeeded(now_ms)
        else:
            opened = self._breaker.failed(now_ms, admitted.permit)
        self._end(admitted.ticket, succeeded)
        if closed:
            self._line.forgive()
        if opened:
            self._send_away()
        return Verdict(opened, closed)

    def _breaker_refuses(self) -> Refused | None:
        until_ms = self._breaker.refused_until(self._clock.now_ms())
        return None if until_ms is None else Refused("open", until_ms)

    async def _place(self, *, again: bool) -> int | None:
        place = self._line.place(self._clock.monotonic_s(), again=again)
        if place == "run":
            return self._line.start()
        if place == "full":
            return None
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int | None] = loop.create_future()
        waits = (waiter, loop.time() + 2 * self._settings.endpoint_wait_s)
        self._queue.append(waits)
        self._line.waiting += 1
        if self._timer is None:
            self._timer = loop.call_at(waits[1], self._give_up)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waits in self._queue:
                self._queue.remove(waits)
                self._line.waiting -= 1
            elif not waiter.cancelled() and (ticket := waiter.result()) is not None:
                self._end(ticket, None)
            raise

    def _give_up(self) -> None:
        """Those that have waited too long."""
        self._timer, loop = None, asyncio.get_running_loop()
        while self._queue and self._queue[0][1] <= loop.time():
            self._answer(None)
        if self._queue:
            self._timer = loop.call_at(self._queue[0][1], self._give_up)

    def _answer(self, ticket: int | None) -> None:
        """The first that waits."""
        waiter, _ = self._queue.popleft()
        self._line.waiting -= 1
        if not waiter.done():
            waiter.set_result(ticket)
        elif ticket is not None:  # it was cancelled just now
            self._line.end(ticket, self._clock.monotonic_s(), None)

    def _end(self, ticket: int, succeeded: bool | None) -> None:
        self._line.end(ticket, self._clock.monotonic_s(), succeeded)
        while self._queue and self._line.has_turn():
            self._answer(self._line.start())

    def _send_away(self) -> None:
        """Who waits for an endpoint that is not attempted any more need not wait on."""
        while self._queue:
            self._answer(None)


class Gates:
    """The gates of one worker. `name` tells its turns from those of other workers and earlier lives."""

    def __init__(self, settings: DeliverySettings, clock: Clock, name: str) -> None:
        self._settings = settings
        self._clock = clock
        self._name = name
        self._gates: dict[EndpointId, Gate] = {}
        self._looked_through_at = _GATES_MAX

    def of(self, endpoint: Endpoint) -> Gate:
        gate = self._gates.get(endpoint.id)
        if gate is None:
            if len(self._gates) >= self._looked_through_at:
                self._gates = {one: kept for one, kept in self._gates.items() if not kept.at_rest}
                self._looked_through_at = max(_GATES_MAX, round(_GROWTH * len(self._gates)))
            gate = self._gates[endpoint.id] = Gate(self._settings, self._clock, self._name, endpoint)
        else:
            gate.configure(endpoint)
        return gate


def rules(settings: DeliverySettings) -> Rules:
    """The breaker's rules as set. None stays open longer than the largest delay topic."""
    longest_ms = round(max(settings.delays_s) * 1000)
    return Rules(
        settings.breaker_failures,
        settings.breaker_ratio,
        settings.breaker_attempts_min,
        round(settings.breaker_window_s * 1000),
        tuple(min(round(open_s * 1000), longest_ms) for open_s in settings.breaker_open_s),
    )
