"""When keys were last used: gathered in the process, written every half minute. For people, so what a kill loses is not missed."""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import psycopg_pool

from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from runtime.telemetry import log

#: Keys gathered between two writes; a use beyond them is noted the next time.
KEYS_MAX: Final = 50_000
_LAST_WRITE_TIMEOUT_S: Final = 2.0


class LastUsed:
    """Key id → Unix milliseconds of its last use here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used_at_ms: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._used_at_ms)

    def note(self, key_id: str) -> None:
        if len(self._used_at_ms) < KEYS_MAX or key_id in self._used_at_ms:
            self._used_at_ms[key_id] = self._clock.now_ms()

    async def write(self, pool: Pool) -> None:
        """One statement. What could not be written is kept for the next time; raises what Postgres or its pool raise."""
        if not self._used_at_ms:
            return
        taken, self._used_at_ms = self._used_at_ms, {}
        try:
            async with pool.connection() as connection:
                await connection.execute(load("access", "note_last_used"), {"ids": list(taken), "used_at_ms": list(taken.values())})
        except (psycopg.Error, psycopg_pool.PoolTimeout, asyncio.CancelledError):
            self._used_at_ms = {**taken, **self._used_at_ms}
            raise

    async def keep_writing(self, pool: Pool, interval_s: float) -> None:
        """A task that writes for as long as the process lives, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(interval_s)
                try:
                    await self.write(pool)
                except Exception as error:  # noqa: BLE001 - a loop that ends would leave every later use unknown
                    log.warning("last_used.not_written", error=str(error))
        finally:
            try:
                async with asyncio.timeout(_LAST_WRITE_TIMEOUT_S):
                    await self.write(pool)
            except Exception as error:  # noqa: BLE001 - the process is ending: there is nobody to raise to
                log.warning("last_used.not_written", error=str(error))
