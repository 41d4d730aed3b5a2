"""Redis, two round trips at a time: what requests ask meanwhile travels together in the next one.

So a process that is busy makes few large round trips and an idle one makes each at once. Redis is a helper here, never the truth: every
call is bounded by a short time-out and a breaker, and a caller that gets `RedisUnavailable` goes on without it. Each round trip also reads
the key epoch (see `access.auth`), before anything else of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from runtime.clock import Clock
from runtime.metrics import REDIS_ROUND_TRIPS
from runtime.redis_wire import Wire
from runtime.settings import RedisSettings
from runtime.telemetry import log

#: Round trips under way at once. With one, what is asked would wait for the answers to others first; with many they are all small.
_TRIPS_MAX: Final = 2
#: Commands in one round trip: what comes beyond waits for the next one, or is refused.
_COMMANDS_MAX: Final = 2_000
_WAITING_MAX: Final = 20_000

Command = tuple[str | bytes | int, ...]
_pack: Final[Callable[[Command], bytes]] = cast(Any, hiredis.pack_command)  # its annotation wants arguments of one type
_round_trips: Final = REDIS_ROUND_TRIPS.tally
#: Arguments that are asked for when the round trip is sent, so that more may join until then.
Late = Callable[[], Command]
#: Gets an answer, or `RedisUnavailable`.
OnAnswer = Callable[[Any], None]


class RedisUnavailable(Exception):
    """Redis did not answer in time, refused, or is being left alone after a failure."""


class Script:
    """A Lua script, sent by its SHA-1, and whole to a Redis that does not know it."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()


class _Asked:
    """One command and who waits for its answer. `late`: the script's arguments are not known before it is sent."""

    __slots__ = ("arguments", "keys", "late", "read", "script", "waiter")

    def __init__(
        self,
        script: Script | None,
        keys: Sequence[str],
        arguments: Command,
        late: Late | None,
        waiter: asyncio.Future[Any] | OnAnswer,
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.late = late
        self.waiter = waiter
        self.read = read

    def packed(self) -> bytes:
        if self.script is None:
            return _pack(self.arguments)
        if self.late is not None:
            self.arguments, self.late = self.late(), None
        return _pack(("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments))

    def whole(self) -> bytes:
        """The script by its text, for a Redis that was restarted and has forgotten it; it knows it afterwards."""
        source = b"" if self.script is None else self.script.source
        return _pack(("EVAL", source, len(self.keys), *self.keys, *self.arguments))

    def answered(self, answer: Any) -> None:
        waiter, failed = self.waiter, isinstance(answer, Exception)
        if callable(waiter):
            waiter(RedisUnavailable(str(answer)) if failed else answer)
        elif waiter.done():
            return
        elif failed:
            waiter.set_exception(RedisUnavailable(str(answer)))
            waiter.exception()  # whoever went away need not be told
        else:
            waiter.set_result(answer if self.read is None else self.read(answer))


class _Trip:
    """A round trip under way, and its time-out."""

    __slots__ = ("asked", "timer")

    def __init__(self, asked: Sequence[_Asked], timer: asyncio.TimerHandle) -> None:
        self.asked = asked
        self.timer = timer


class RedisTick:
    """Collects commands. `watch` names a key whose value every round trip reads; `on_watched` gets it first of all.

    `on_watched(value)` runs before any future of that round trip is resolved, so what it invalidates is never used by them.
    """

    def __init__(self, settings: RedisSettings, clock: Clock, *, watch: str, on_watched: Callable[[bytes | None], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._watching = _pack(("GET", watch))
        self._on_watched = on_watched
        self._waiting: list[_Asked] = []
        self._trips: list[_Trip] = []
        self._scheduled = False
        self._connecting: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        self._closed_until_s = 0.0
        #: Round trips that failed: whoever trusts what Redis holds looks whether this has changed.
        self.failures = 0
        self._pool: Any = redis.asyncio.ConnectionPool.from_url(
            settings.url.get_secret_value(),
            socket_timeout=None,  # each round trip is bounded as a whole
            socket_connect_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    @property
    def available(self) -> bool:
        return self._clock.monotonic_s() >= self._closed_until_s

    def execute(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Queue one command for the next round trip. The future fails with `RedisUnavailable`."""
        future = asyncio.get_running_loop().create_future()
        self._queue(_Asked(None, (), command, None, future))
        return future

    def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> asyncio.Future[Any]:
        """Queue a script."""
        return self.run_read(None, script, keys, arguments)

    def run_read(
        self, read: Callable[[Any], Any] | None, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> asyncio.Future[Any]:
        """Queue a script; `read` makes what the future gets of its answer, and may not fail."""
        future = asyncio.get_running_loop().create_future()
        asked = _Asked(script, keys, tuple(arguments), None, future, read)
        if self._closed_until_s or len(self._waiting) >= _WAITING_MAX:
            self._queue(asked)
            return future
        self._waiting.append(asked)
        if not self._scheduled:
            self._schedule()
        return future

    def run_late(self, script: Script, keys: Sequence[str], arguments: Late, on_answer: OnAnswer) -> None:
        """Queue a script whose arguments are not all known yet. `on_answer` is called once, never before this returns."""
        self._queue(_Asked(script, keys, (), arguments, on_answer))

    def tell(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int], on_answer: OnAnswer) -> None:
        """Queue a script that nobody waits for. `on_answer` is called once, never before this returns."""
        self._queue(_Asked(script, keys, tuple(arguments), None, on_answer))

    def touch(self) -> asyncio.Future[Any]:
        """Nothing but a round trip that begins now or later, for the watched key. Fails with `RedisUnavailable`."""
        return self.execute("PING")

    def _queue(self, asked: _Asked) -> None:
        if (self._closed_until_s and not self.available) or len(self._waiting) >= _WAITING_MAX:
            unavailable = RedisUnavailable("Redis is left alone after a failure")
            if callable(asked.waiter):
                asyncio.get_running_loop().call_soon(asked.answered, unavailable)
            else:
                asked.answered(unavailable)
            return
        self._waiting.append(asked)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and len(self._trips) < _TRIPS_MAX and self._connecting is None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        asked, self._waiting = self._waiting[:_COMMANDS_MAX], self._waiting[_COMMANDS_MAX:]
        late = TimeoutError(f"no answer in {self._settings.timeout_s:g} s")
        trip = _Trip(asked, loop.call_later(self._settings.timeout_s, self._failed, late))
        self._trips.append(trip)
        if self._wire is not None and self._wire.usable:
            self._send(self._wire, trip)
        else:
            self._connecting = loop.create_task(self._connect(trip))
        if self._waiting:
            self._schedule()

    async def _connect(self, trip: _Trip) -> None:
        try:
            self._wire = await Wire.connect(self._pool.make_connection())
        except Exception as error:  # noqa: BLE001 - whatever the client library does, every caller of the round trip gets an answer
            self._connecting = None
            self._failed(error)
        else:
            self._connecting = None
            self._send(self._wire, trip)
            if self._waiting:
                self._schedule()

    def _send(self, wire: Wire, trip: _Trip) -> None:
        try:
            commands = [self._watching, *[asked.packed() for asked in trip.asked]]
            wire.ask(b"".join(commands), len(commands), partial(self._answered, trip))
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)

    def _answered(self, trip: _Trip, answers: Sequence[Any] | Exception) -> None:
        if isinstance(answers, Exception):
            self._failed(answers)
            return
        forgotten: Sequence[int] = ()
        if ResponseError in map(type, answers):
            forgotten = [place for place, asked in enumerate(trip.asked, 1) if asked.script is not None and _is_unknown(answers[place])]
        if forgotten and self._wire is not None:
            commands = [self._watching, *(trip.asked[place - 1].whole() for place in forgotten)]

            def whole(again: Sequence[Any] | Exception) -> None:
                if isinstance(again, Exception):
                    self._failed(again)
                    return
                found = list(answers)
                found[0] = again[0]  # the watched value as it was last read
                for place, answer in zip(forgotten, again[1:], strict=True):
                    found[place] = answer
                self._ended(trip, found)

            self._wire.ask(b"".join(commands), len(commands), whole)
        else:
            self._ended(trip, answers)

    def _ended(self, trip: _Trip, answers: Sequence[Any]) -> None:
        if isinstance(answers[0], Exception):
            self._failed(answers[0])
            return
        _round_trips["ok"] += 1
        if self._closed_until_s != math.inf:
            self._closed_until_s = 0.0
        trip.timer.cancel()
        self._trips.remove(trip)
        self._on_watched(answers[0])
        for asked, answer in zip(trip.asked, answers[1:], strict=True):
            asked.answered(answer)
        if self._waiting:
            self._schedule()

    def _failed(self, error: Exception) -> None:
        _round_trips["failed"] += 1
        self.failures += 1
        self._closed_until_s = max(self._closed_until_s, self._clock.monotonic_s() + self._settings.retry_after_s)
        log.warning("redis.unavailable", error=repr(error), retry_after_s=self._settings.retry_after_s)
        self._drop(repr(error))

    def _drop(self, why: str) -> None:
        """End all round trips. What waits behind them would only wait longer: the breaker is open for it too."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:  # the next answers on it would be to what is given up here
            self._wire.close()
        self._wire = self._connecting = None
        trips, self._trips = self._trips, []
        waiting, self._waiting = self._waiting, []
        for trip in trips:
            trip.timer.cancel()
        for asked in (*(asked for trip in trips for asked in trip.asked), *waiting):
            asked.answered(RedisUnavailable(why))

    async def close(self) -> None:
        """End what is under way; whoever waits for it gets `RedisUnavailable`."""
        self._closed_until_s = math.inf
        connecting = self._connecting
        self._drop("Redis is being closed")
        if connecting is not None:
            await asyncio.gather(connecting, return_exceptions=True)


def _is_unknown(answer: Any) -> bool:
    return isinstance(answer, RedisError) and str(answer).startswith("NOSCRIPT")
