"""Replays as the control plane has them: whether one goes on, how fast, and how far it is at each of its endpoints."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from delivery.waiting import until_postgres_answers
from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from schemas.deliveries import Replay
from schemas.ids import RoundId

#: The state of a replay is asked for by its retries this often at most.
_CACHE_S: Final = 1.0
_CACHED_MAX: Final = 1_000

Ended = Literal["done", "cancelled", "endpoint_missing", "log_missing"]


class Look(NamedTuple):
    """`state`: `running`, `paused` or `cancelled`. `page`: the one that is next. `ended`: nothing more is sent to this endpoint."""

    state: str
    rate_per_s: float
    page: int
    ended: str | None


class ReplayState:
    """Every method waits for Postgres as long as it takes."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._states: dict[RoundId, tuple[float, str | None]] = {}

    async def look(self, replay: Replay) -> Look | None:
        """None where the control plane does not know it: it was restored from an older backup."""
        rows = await self._run("replay_look", {"round": replay.round, "endpoint_id": replay.endpoint_id})
        return Look._make(rows[0]) if rows else None

    async def state(self, round_id: RoundId) -> str | None:
        """As it was a second ago, for the many retries of one replay."""
        cached = self._states.get(round_id)
        if cached is not None and cached[0] > self._clock.monotonic_s():
            return cached[1]
        rows = await self._run("replay_state", {"round": round_id})
        if len(self._states) >= _CACHED_MAX:
            self._states.clear()
        state = rows[0][0] if rows else None
        self._states[round_id] = (self._clock.monotonic_s() + _CACHE_S, state)
        return state

    async def begin(self, replay: Replay) -> None:
        """The log asks for this page."""
        await self._run("replay_begin", _values(replay))

    async def progress(self, following: Replay) -> None:
        """The log asks for this next page."""
        await self._run("replay_progress", _values(following))

    async def passed(self, following: Replay) -> None:
        """An earlier life has asked the log for this next page, and knew how far it was."""
        await self._run("replay_passed", _values(following))

    async def park(self, following: Replay) -> bool:
        """Leave the next page to whoever resumes the replay; False if it is not paused any more."""
        return bool(await self._change("replay_park", _values(following)))

    async def end(self, following: Replay, ended: Ended) -> None:
        await self._run("replay_end", {**_values(following), "ended": ended})

    async def _run(self, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        async def ask(connection: Any) -> list[tuple[Any, ...]]:
            done = await connection.execute(load("delivery", statement), values)
            return await done.fetchall() if done.description is not None else []

        return await until_postgres_answers(self._pool, ask)

    async def _change(self, statement: str, values: dict[str, Any]) -> int:
        async def change(connection: Any) -> int:
            return int((await connection.execute(load("delivery", statement), values)).rowcount)

        return await until_postgres_answers(self._pool, change)


def _values(replay: Replay) -> dict[str, Any]:
    return {
        "round": replay.round, "endpoint_id": replay.endpoint_id, "page": replay.page, "next_offset": replay.next_offset,
        "ingested_high": replay.ingested_high, "begun": replay.begun,
    }  # fmt: skip
