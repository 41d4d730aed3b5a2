"""Redis, one round trip per event-loop tick: what all requests of a tick ask travels in one pipeline.

Redis is a helper here, never the truth: every call is bounded by a short time-out and a breaker, and a caller that gets
`RedisUnavailable` goes on without it. Each round trip also reads the key epoch (see `access.auth`), before anything else of the tick.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import redis.asyncio
from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from runtime.clock import Clock
from runtime.metrics import REDIS_ROUND_TRIPS
from runtime.settings import RedisSettings
from runtime.telemetry import log

#: Round trips under way at once, and commands in one: what comes beyond waits for the next tick, or is refused.
_IN_FLIGHT_MAX: Final = 8
_COMMANDS_MAX: Final = 2_000
_WAITING_MAX: Final = 20_000

Command = tuple[str | bytes | int, ...]
#: Arguments that are asked for when the round trip is sent, so that more may join until then; asked twice they are the same.
Late = Callable[[], Command]


class RedisUnavailable(Exception):
    """Redis did not answer in time, refused, or is being left alone after a failure."""


class Script:
    """A Lua script, sent by its SHA-1 and loaded again when Redis does not know it."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.sha: str | None = None


class RedisTick:
    """Collects the commands of a tick. `watch` names a key whose value every round trip reads; `on_watched` gets it first of all.

    `on_watched(value)` runs before any future of that round trip is resolved, so what it invalidates is never used by them.
    """

    def __init__(self, settings: RedisSettings, clock: Clock, *, watch: str, on_watched: Callable[[bytes | None], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._watching = _packed(("GET", watch))
        self._on_watched = on_watched
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed_until_s = 0.0
        #: Round trips that failed: whoever trusts what Redis holds looks whether this has changed.
        self.failures = 0
        self._client = redis.asyncio.Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=None,  # each round trip is bounded as a whole
            socket_connect_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=_IN_FLIGHT_MAX + 2,
            # With them on, a connection that Redis has closed is handed out as if it were good (redis-py 8.1).
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    @property
    def available(self) -> bool:
        return self._clock.monotonic_s() >= self._closed_until_s

    def execute(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Queue one command for this tick's round trip. The future fails with `RedisUnavailable`."""
        return self._queue(command)

    def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> asyncio.Future[Any]:
        """Queue a script."""
        return self._queue((script, keys, arguments))

    def run_late(self, script: Script, keys: Sequence[str], arguments: Late) -> asyncio.Future[Any]:
        """Queue a script whose arguments are not all known yet."""
        return self._queue((script, keys, arguments))

    def touch(self) -> asyncio.Future[Any]:
        """Nothing but this tick's round trip, for the watched key. Fails with `RedisUnavailable`."""
        return self._queue(None)

    def _queue(self, work: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.available or len(self._waiting) >= _WAITING_MAX:
            future.set_exception(RedisUnavailable("Redis is left alone after a failure"))
            return future
        self._waiting.append((work, future))
        self._schedule()
        return future

    def _schedule(self) -> None:
        if not self._scheduled and len(self._tasks) < _IN_FLIGHT_MAX:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch, self._waiting = self._waiting[:_COMMANDS_MAX], self._waiting[_COMMANDS_MAX:]
        if not batch:
            return
        task = asyncio.get_running_loop().create_task(self._round_trip(batch))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, batch))

    def _ended(self, batch: list[tuple[Any, asyncio.Future[Any]]], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _fail(batch, "Redis is being closed")  # `close` may end a round trip anywhere, also before its first step
        if self._waiting:
            self._schedule()

    async def _round_trip(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answers = await self._send(batch)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever the client library does, every caller of the tick gets an answer
            self._failed(batch, error)
            return
        REDIS_ROUND_TRIPS.labels("ok").inc()
        watched, *rest = answers
        if isinstance(watched, Exception):
            self._failed(batch, watched)
            return
        self._on_watched(watched)
        values = iter(rest)
        for work, future in batch:
            answer = None if work is None else next(values)
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(RedisUnavailable(str(answer)))
                future.exception()  # whoever went away need not be told
            else:
                future.set_result(answer)

    async def _send(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> list[Any]:
        answers = await self._pipeline(batch)
        missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:  # Redis was restarted and has forgotten its scripts
            asked = [work for work, _ in batch if work is not None]
            for script in {work[0] for work in asked if isinstance(work[0], Script)}:
                script.sha = await self._client.script_load(script.source)
            again = await self._pipeline([(asked[i - 1], batch[0][1]) for i in missing])
            answers[0] = again[0]  # the watched value as it was last read
            for place, answer in zip(missing, again[1:], strict=True):
                answers[place] = answer
        return answers

    async def _pipeline(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> list[Any]:
        """One write, and an answer for each command; an error of one command is its answer.

        Below redis-py's own pipeline, which packs in Python and was a fifth of the CPU of an event (measured); its pool and connections
        do the rest.
        """
        commands = [self._watching]
        for work, _ in batch:
            if work is None:
                continue
            if isinstance(work[0], Script):
                script, keys, arguments = work
                if callable(arguments):
                    arguments = arguments()
                if script.sha is None:
                    script.sha = await self._client.script_load(script.source)
                commands.append(_packed(("EVALSHA", script.sha, len(keys), *keys, *arguments)))
            else:
                commands.append(_packed(work))
        pool: Any = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(b"".join(commands), check_health=False)
            return [await _answer_of(connection) for _ in commands]
        except BaseException:  # the next user of the connection must not read what was meant for us
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _failed(self, batch: list[tuple[Any, asyncio.Future[Any]]], error: BaseException) -> None:
        REDIS_ROUND_TRIPS.labels("failed").inc()
        self.failures += 1
        self._closed_until_s = max(self._closed_until_s, self._clock.monotonic_s() + self._settings.retry_after_s)
        log.warning("redis.unavailable", error=repr(error), retry_after_s=self._settings.retry_after_s)
        # What waits would only wait longer: the breaker is open for it too.
        waiting, self._waiting = self._waiting, []
        _fail([*batch, *waiting], repr(error))

    async def close(self) -> None:
        """End what is under way; whoever waits for it gets `RedisUnavailable`."""
        self._closed_until_s = math.inf
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waiting, self._waiting = self._waiting, []
        _fail(waiting, "Redis is being closed")
        await self._client.aclose()


def _packed(command: Command) -> bytes:
    return bytes(pack_command(cast(Any, command)))  # its annotation wants arguments of one type


async def _answer_of(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _fail(batch: Sequence[tuple[Any, asyncio.Future[Any]]], reason: str) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(RedisUnavailable(reason))
            future.exception()  # whoever went away need not be told
