"""How much an organization may send: a sliding window of one-second sub-buckets, in Redis, shared by all processes.

The oldest sub-bucket is counted whole, so that no 60 s ever hold more than the limit. What all requests of an event-loop tick take from one
quota is one script call in that tick's round trip. Without Redis each process keeps the same window for itself: the limit then holds per
process. Live and test data have quotas of their own. Not here: what is counted (`ingest.admission`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final, Generic, NamedTuple, TypeVar

from access.auth import Principal
from runtime.clock import Clock
from runtime.metrics import QUOTA_EVENTS
from runtime.redis import RedisTick, RedisUnavailable, Script
from schemas.events import Mode
from schemas.ids import OrganizationId
from schemas.problems import RATE_LIMITED, ProblemError

#: Events a minute by plan.
PLAN_LIMITS: Final[Mapping[str, int]] = {"free": 100, "starter": 1_000, "pro": 10_000, "enterprise": 100_000}
WINDOW_S: Final = 60
_BUCKET_MS: Final = 1_000
#: Quotas remembered in the process; the least recently used are forgotten.
_REMEMBERED_MAX: Final = 10_000

V = TypeVar("V")

_quota_events: Final = QUOTA_EVENTS.tally


class Allowance(NamedTuple):
    """What a request got. `granted` may be fewer than it asked for. `reset_s`: whole seconds until the quota next grows, at least 1."""

    limit: int
    granted: int
    remaining: int
    reset_s: int


#: Gets what a request got.
OnAllowance = Callable[[Allowance], None]


class _Quota(NamedTuple):
    """What is counted together."""

    organization: OrganizationId
    mode: Mode
    limit: int

    @property
    def redis_key(self) -> str:
        """Hash-tagged by organization, so that Redis Cluster keeps one organization's work on one shard."""
        return f"triggers:quota:{{{self.organization}}}:{self.mode}"

    @property
    def window_key(self) -> tuple[OrganizationId, Mode]:
        return self.organization, self.mode


def limit_of(principal: Principal) -> int:
    """Events a minute: the organization's own limit, else its plan's."""
    return principal.rate_limit_per_minute or PLAN_LIMITS[principal.plan]


def rate_headers(allowance: Allowance) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-10."""
    return {
        "RateLimit-Policy": f'"events";q={allowance.limit};w={WINDOW_S}',
        "RateLimit": f'"events";r={allowance.remaining};t={allowance.reset_s}',
    }


def rate_lines(allowance: Allowance) -> bytes:
    """The same as lines of an answer's head."""
    return b'ratelimit-policy: "events";q=%d;w=%d\r\nratelimit: "events";r=%d;t=%d\r\n' % (
        allowance.limit,
        WINDOW_S,
        allowance.remaining,
        allowance.reset_s,
    )


def refused(allowance: Allowance) -> ProblemError:
    """The problem of a request that was granted nothing."""
    detail = (
        f"The quota of {allowance.limit} events a minute is used up; nothing was appended. "
        f"Send again in {allowance.reset_s} s, or ask for a higher plan."
    )
    return ProblemError(RATE_LIMITED, detail, headers={"Retry-After": str(allowance.reset_s), **rate_headers(allowance)})


class Window:
    """The same window in the process, of events that were granted. Times are milliseconds of any clock that never goes back."""

    def __init__(self, span: int, bucket_ms: int) -> None:
        self._span = span
        self._bucket_ms = bucket_ms
        self._buckets: deque[tuple[int, int]] = deque()
        self._total = 0

    def take(self, now_ms: int, limit: int, asked: int) -> tuple[int, int, int]:
        """(events granted, events left, ms until the oldest bucket leaves the window)."""
        self._pass(now_ms)
        granted = max(0, min(asked, limit - self._total))
        self.note(now_ms, granted)
        oldest = self._buckets[0][0] if self._buckets else now_ms // self._bucket_ms
        return granted, max(0, limit - self._total), (oldest + self._span + 1) * self._bucket_ms - now_ms

    def note(self, now_ms: int, granted: int) -> None:
        """Events granted elsewhere (by Redis), so that losing it does not hand out a quota anew."""
        self._pass(now_ms)
        if not granted:
            return
        bucket = now_ms // self._bucket_ms
        if self._buckets and self._buckets[-1][0] == bucket:
            self._buckets[-1] = (bucket, self._buckets[-1][1] + granted)
        else:
            self._buckets.append((bucket, granted))
        self._total += granted

    def _pass(self, now_ms: int) -> None:
        first = now_ms // self._bucket_ms - self._span
        while self._buckets and self._buckets[0][0] < first:
            self._total -= self._buckets.popleft()[1]


class Limiter:
    """One per process. `now_ms` replaces Redis's clock in tests; `span` and `bucket_ms` shorten the window there."""

    def __init__(
        self,
        tick: RedisTick,
        clock: Clock,
        *,
        span: int = WINDOW_S,
        bucket_ms: int = _BUCKET_MS,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._tick = tick
        self._clock = clock
        self._span = span
        self._bucket_ms = bucket_ms
        self._now_ms = now_ms
        self._script = Script((files("access") / "lua" / "take.lua").read_bytes())
        self._open: dict[_Quota, _Group] = {}
        self._windows: _Remembered[tuple[OrganizationId, Mode], Window] = _Remembered()
        #: Quotas that are used up: local milliseconds until which Redis need not be asked.
        self._used_up: _Remembered[_Quota, int] = _Remembered()

    async def take(self, principal: Principal, count: int) -> Allowance:
        """At most `count` events; never fails."""
        return await self.ask(principal, count)

    def ask(self, principal: Principal, count: int) -> asyncio.Future[Allowance]:
        """As `take`, without waiting. One round trip with everything else that is asked of Redis until it begins."""
        quota = _Quota(principal.organization, principal.mode, limit_of(principal))
        until_ms = self._used_up.get(quota) if self._used_up.kept else None
        if until_ms is not None and (wait_ms := until_ms - self.local_ms()) > 0:
            _quota_events["refused"] += count
            refusal: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
            refusal.set_result(_allowance(quota, 0, 0, wait_ms))
            return refusal
        return self._group(quota).add(count)

    def ask_for(self, principal: Principal, on_allowance: OnAllowance) -> bool:
        """As `ask` for one event; `on_allowance` is called once, never before this returns, and may not raise. False: ask `ask`, a quota
        that is used up is answered there."""
        quota = _Quota(principal.organization, principal.mode, limit_of(principal))
        if self._used_up.kept and (until_ms := self._used_up.get(quota)) is not None and until_ms > self.local_ms():
            return False
        self._group(quota).join(1, on_allowance)
        return True

    def _group(self, quota: _Quota) -> _Group:
        """What requests of this tick take from it."""
        group = self._open.get(quota)
        if group is None:
            group = self._open[quota] = _Group(self, quota)
            self._tick.run_late(self._script, (quota.redis_key,), group.late, group.answered)
        return group

    def close_group(self, quota: _Quota, asked: int) -> tuple[int | str, ...]:
        """The script's arguments, once nobody can join the group any more."""
        self._open.pop(quota, None)
        return (quota.limit, asked, self._span, self._bucket_ms, "" if self._now_ms is None else self._now_ms())

    def answered(self, quota: _Quota, sent_ms: int, granted: int, left: int, reset_ms: int) -> None:
        """By Redis."""
        self._window(quota).note(self.local_ms(), granted)
        if not left:
            # From when it was asked, not from now: too early costs a question, too late would refuse what Redis would grant.
            self._used_up.put(quota, sent_ms + reset_ms)

    def alone(self, quota: _Quota, asked: int) -> tuple[int, int, int]:
        """Without Redis: as `Window.take`."""
        self._open.pop(quota, None)
        return self._window(quota).take(self.local_ms(), quota.limit, asked)

    def _window(self, quota: _Quota) -> Window:
        window = self._windows.get(quota.window_key)
        if window is None:
            window = Window(self._span, self._bucket_ms)
            self._windows.put(quota.window_key, window)
        return window

    def local_ms(self) -> int:
        """This process's monotonic clock."""
        return int(self._clock.monotonic_s() * 1000)


class _Group:
    """What the requests of one tick take from one quota: one script call, its grant shared out first come, first served."""

    def __init__(self, limiter: Limiter, quota: _Quota) -> None:
        self._limiter = limiter
        self._quota = quota
        self._waiting: list[tuple[int, asyncio.Future[Allowance] | OnAllowance]] = []
        self._arguments: tuple[int | str, ...] | None = None
        self._sent_ms = 0
        self._asked = 0

    def add(self, count: int) -> asyncio.Future[Allowance]:
        future: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
        self.join(count, future)
        return future

    def join(self, count: int, waiter: asyncio.Future[Allowance] | OnAllowance) -> None:
        self._waiting.append((count, waiter))
        self._asked += count

    def late(self) -> tuple[int | str, ...]:
        """The script's arguments, when the round trip begins."""
        if self._arguments is None:
            self._sent_ms = self._limiter.local_ms()
            self._arguments = self._limiter.close_group(self._quota, self._asked)
        return self._arguments

    def answered(self, answer: Any) -> None:
        """The script's answer, or `RedisUnavailable`."""
        asked = self._asked
        if isinstance(answer, RedisUnavailable):
            _quota_events["without_redis"] += asked
            granted, left, reset_ms = self._limiter.alone(self._quota, asked)
        else:
            granted, left, reset_ms = answer
            self._limiter.answered(self._quota, self._sent_ms, granted, left, reset_ms)
        _quota_events["granted"] += granted
        if granted < asked:
            _quota_events["refused"] += asked - granted
        for count, waiter in self._waiting:
            mine = min(count, granted)
            granted -= mine
            allowance = _allowance(self._quota, mine, left, reset_ms)
            if callable(waiter):
                waiter(allowance)
            elif not waiter.done():
                waiter.set_result(allowance)


def _allowance(quota: _Quota, granted: int, left: int, reset_ms: int) -> Allowance:
    return Allowance(quota.limit, granted, left, max(1, -(-reset_ms // 1000)))


K = TypeVar("K")


class _Remembered(Generic[K, V]):
    """A bounded map that forgets what was not used for the longest time."""

    def __init__(self) -> None:
        self.kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self.kept.get(key)
        if value is not None:
            self.kept.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self.kept[key] = value
        self.kept.move_to_end(key)
        if len(self.kept) > _REMEMBERED_MAX:
            self.kept.popitem(last=False)
