"""Encrypted events opened for the moment of an attempt. Postgres is waited for, never guessed: our outage costs an endpoint no attempt."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from access.data_keys import unwrapped
from access.envelopes import DataKey, envelope_of
from access.secrets import Keyring
from delivery.waiting import until_postgres_answers
from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from schemas.events import Ingested
from schemas.ids import DataKeyId

#: A key that was there serves other attempts for this long. What was erased is posted no more after it.
_CACHE_S: Final = 1.0
_CACHED_MAX: Final = 10_000


class Opening:
    """Data keys of one worker."""

    def __init__(self, pool: Pool, keyring: Keyring, clock: Clock) -> None:
        self._pool = pool
        self._keyring = keyring
        self._clock = clock
        self._cache: dict[tuple[str, DataKeyId], tuple[float, DataKey]] = {}
        self._looking: dict[tuple[str, DataKeyId], asyncio.Task[DataKey | None]] = {}

    async def key_of(self, event: Ingested) -> DataKey | None:
        """Of an encrypted event; None where it was erased. Raises `access.envelopes.EnvelopeError`, `access.secrets.KeyringError`."""
        wanted = (event.organization, envelope_of(bytes(event.payload)).key)
        cached = self._cache.get(wanted)
        if cached is not None and cached[0] > self._clock.monotonic_s():
            return cached[1]
        looking = self._looking.get(wanted)
        if looking is None:
            looking = self._looking[wanted] = asyncio.create_task(self._look_up(*wanted))
            looking.add_done_callback(lambda _: self._looking.pop(wanted, None))
        return await asyncio.shield(looking)

    async def _look_up(self, organization: str, key_id: DataKeyId) -> DataKey | None:
        async def find(connection: Any) -> DataKey | None:
            values = {"organization": organization, "ids": [key_id]}
            row = await (await connection.execute(load("access", "data_keys_by_id"), values)).fetchone()
            return None if row is None else DataKey(key_id, unwrapped(self._keyring, organization, row))

        asked_s = self._clock.monotonic_s()
        key = await until_postgres_answers(self._pool, find)
        if key is not None:
            if len(self._cache) >= _CACHED_MAX:
                self._cache.clear()
            self._cache[organization, key_id] = (asked_s + _CACHE_S, key)
        return key
