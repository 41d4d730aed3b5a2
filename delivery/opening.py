"""Encrypted events opened for the moment of an attempt. Postgres is waited for, never guessed: our outage costs an endpoint no attempt."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

from access.data_keys import unwrapped
from access.envelopes import DataKey, EnvelopeError, key_id
from access.secrets import Keyring
from delivery.waiting import until_postgres_answers
from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from runtime.telemetry import log
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
        """Of an encrypted event; None where it was erased, or where there is no envelope. Raises `access.secrets.KeyringError`."""
        named = key_id(bytes(event.payload))
        if named is None:
            log.error("envelope.unreadable", event_id=event.id, error="this is no envelope")
            return None
        wanted = (event.organization, named)
        cached = self._cache.get(wanted)
        if cached is not None and cached[0] > self._clock.monotonic_s():
            return cached[1]
        looking = self._looking.get(wanted)
        if looking is None:
            looking = self._looking[wanted] = asyncio.create_task(self._look_up(*wanted))
            looking.add_done_callback(lambda _: self._looking.pop(wanted, None))
        return await asyncio.shield(looking)

    async def open(self, event: Ingested) -> tuple[Ingested, DataKey] | None:
        """The event as it was sent, and its key; None where nobody can read it any more. Raises as `key_of`.

        An envelope that was altered never opens: that ends its delivery too, or everything behind it in its partition would wait for ever.
        """
        key = await self.key_of(event)
        if key is None:
            return None
        try:
            return key.plain(event), key
        except EnvelopeError as error:
            log.error("envelope.unreadable", event_id=event.id, error=str(error))
            return None

    async def _look_up(self, organization: str, named: DataKeyId) -> DataKey | None:
        async def find(connection: Any) -> DataKey | None:
            values = {"organization": organization, "ids": [named]}
            row = await (await connection.execute(load("access", "data_keys_by_id"), values)).fetchone()
            return None if row is None else DataKey(named, unwrapped(self._keyring, organization, row))

        asked_s = self._clock.monotonic_s()
        key = await until_postgres_answers(self._pool, find)
        if key is None:
            self._cache.pop((organization, named), None)
        else:
            if len(self._cache) >= _CACHED_MAX:
                self._cache.clear()
            self._cache[organization, named] = (asked_s + _CACHE_S, key)
        return key


def kept(response: bytes, event: Ingested, attempt: str, key: DataKey | None) -> str | None:
    """What is journalled of an answer to an attempt: with a data key sealed, as what it answers to."""
    if not response:
        return None
    return base64.b64encode(response).decode() if key is None else key.seal_response(response, event, attempt)
