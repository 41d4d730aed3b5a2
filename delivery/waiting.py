"""Postgres is waited for as long as it takes: our outage costs an endpoint no attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
import psycopg_pool

from runtime.postgres import Pool
from runtime.telemetry import log

T = TypeVar("T")

_PAUSE_FIRST_S: Final = 0.1
_PAUSE_MAX_S: Final = 5.0


async def until_postgres_answers(pool: Pool, work: Callable[[Any], Awaitable[T]]) -> T:
    """`work` with a connection, again and again until it was done."""
    pause_s = _PAUSE_FIRST_S
    while True:
        try:
            async with pool.connection() as connection:
                return await work(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout) as error:
            log.warning("delivery.waiting", server="PostgreSQL", error=str(error).splitlines()[:1], pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
