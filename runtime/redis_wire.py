"""One connection to Redis for `runtime.redis`: bytes of many commands out, their answers in order back, without a task or a stream between.

redis-py connects (address, TLS, password, database) and then hands its transport over: its own reader is a coroutine for each answer, which
was a tenth of the CPU of an event (measured). It has no public way to its transport (8.1): `_writer` is where it is, and what is not taken
away from there (`_close`) is warned of as not closed. Errors of single commands are answers. Not here: what is asked, time-outs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError

#: The answers of all commands of a round trip, or why they do not come.
OnAnswers = Callable[[Sequence[Any] | Exception], None]


class Wire(asyncio.Protocol):
    """Answers come in the order of what was asked. A wire that failed stays failed: make another."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(replyError=cast(Any, ResponseError), protocolError=cast(Any, Lost))
        self._transport: asyncio.Transport | None = None
        #: Round trips under way: how many answers each waits for, and who for them.
        self._asked: deque[tuple[int, OnAnswers]] = deque()
        self._answers: list[Any] = []

    @classmethod
    async def connect(cls, connection: Any) -> Wire:
        """`connection`: of redis-py, not yet open (it has no types there). Raises what redis-py raises: `RedisError`, `OSError`."""
        try:
            await connection.connect()
        except BaseException:
            connection._close()
            raise
        writer = connection._writer
        if writer is None:
            raise Lost("closed while it was being opened")
        wire = cls(connection)
        wire._transport = cast(asyncio.Transport, writer.transport)
        wire._transport.set_protocol(wire)
        return wire

    @property
    def usable(self) -> bool:
        """Open as far as is known."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, commands: bytes, count: int, on_answers: OnAnswers) -> None:
        """Send `count` packed commands; `on_answers` is called once, never before this returns. Raises when the wire is closed."""
        if self._transport is None:
            raise Lost("closed")
        self._asked.append((count, on_answers))
        self._transport.write(commands)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NONE_YET:
                self._answers.append(answer)
        except Lost as error:  # what is no answer of a Redis
            self._end(error)
            return
        while self._asked and len(self._answers) >= self._asked[0][0]:
            count, on_answers = self._asked.popleft()
            answers, self._answers = self._answers[:count], self._answers[count:]
            on_answers(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or Lost("Redis closed the connection"))

    def close(self) -> None:
        """Whoever waits for answers is not told."""
        self._asked.clear()
        self._end(Lost("closed"))

    def _end(self, why: Exception) -> None:
        self._transport = None
        self._connection._close()  # without waiting, from wherever it is called
        asked, self._asked = self._asked, deque()
        for _, on_answers in asked:
            on_answers(why)


#: What hiredis says when no whole answer is there.
_NONE_YET: Final = False
