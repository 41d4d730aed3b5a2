"""Data keys: one per organization and subject, and one for its events without a subject; random, under a master key at rest.

Live and test share them: the envelope binds the mode, and to erase somebody must never leave the half of another mode behind.
A process keeps them for seconds and forgets all when the epoch changes (`access.epoch`), so an erased key is gone at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import psycopg
import psycopg_pool
from psycopg import AsyncConnection, Connection

from access.envelopes import KEY_BYTES, DataKey, subject_digest
from access.secrets import Keyring, KeyringError
from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from runtime.telemetry import log
from schemas import ids
from schemas.ids import DataKeyId, OrganizationId
from schemas.problems import UNAVAILABLE, ProblemError

#: The row of `control.data_keys` that holds an organization's index secret has no digest.
INDEX: Final = b""
_CACHE_S: Final = 5.0
_CACHED_MAX: Final = 10_000
#: Times a key is looked for again that somebody erased meanwhile.
_TRIES_MAX: Final = 5

Row = tuple[str, bytes, bytes, str]
K = TypeVar("K")
V = TypeVar("V")


class _Held(Generic[K, V]):
    """What is kept for seconds. Full, it is emptied: it fills again by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        found = self._entries.get(key)
        return None if found is None or found[0] <= self._clock.monotonic_s() else found[1]

    def keep(self, key: K, value: V) -> None:
        if len(self._entries) >= _CACHED_MAX:
            self._entries.clear()
        self._entries[key] = (self._clock.monotonic_s() + _CACHE_S, value)

    def clear(self) -> None:
        self._entries.clear()


class DataKeys:
    """One per process. `changes` counts the epochs seen (`access.auth.Authenticator.changes`)."""

    def __init__(self, pool: Pool, keyring: Keyring, clock: Clock, changes: Callable[[], int]) -> None:
        self._pool = pool
        self._keyring = keyring
        self._clock = clock
        self._changes = changes
        self._seen = changes()
        self._by_id: _Held[tuple[OrganizationId, DataKeyId], DataKey] = _Held(clock)
        self._by_subject: _Held[tuple[OrganizationId, str | None], DataKey] = _Held(clock)
        self._index: _Held[OrganizationId, bytes] = _Held(clock)

    async def of_subjects(self, organization: OrganizationId, subjects: Iterable[str | None]) -> dict[str | None, DataKey]:
        """The key of each, made where there is none: at most a few statements for all. Raises the problem `unavailable`."""
        self._forget()
        wanted = set(subjects)
        found = {subject: key for subject in wanted if (key := self._by_subject.get((organization, subject))) is not None}
        if missing := sorted(wanted - found.keys(), key=lambda subject: (subject is not None, subject or "")):
            before = self._changes()
            try:
                async with self._pool.connection() as connection:
                    made = await self._made(connection, organization, missing)
            except (psycopg.OperationalError, psycopg_pool.PoolTimeout, KeyringError) as error:
                raise _unavailable(error) from error
            if self._changes() == before:
                for subject, key in made.items():
                    self._by_subject.keep((organization, subject), key)
            found.update(made)
        return found

    async def by_ids(
        self, connection: AsyncConnection[Any], organization: OrganizationId, wanted: Iterable[DataKeyId]
    ) -> dict[DataKeyId, DataKey]:
        """Those that are there: one statement at most. What is not there was erased. Raises the problem `unavailable`."""
        self._forget()
        named = set(wanted)
        found = {key_id: key for key_id in named if (key := self._by_id.get((organization, key_id))) is not None}
        if missing := named - found.keys():
            before = self._changes()
            values = {"organization": organization, "ids": sorted(missing)}
            rows = await (await connection.execute(load("access", "data_keys_by_id"), values)).fetchall()
            try:
                looked_up = {
                    key_id: DataKey(key_id, unwrapped(self._keyring, organization, row)) for row in rows if (key_id := DataKeyId(row[0]))
                }
            except KeyringError as error:
                raise _unavailable(error) from error
            if self._changes() == before:
                for key_id, key in looked_up.items():
                    self._by_id.keep((organization, key_id), key)
            found.update(looked_up)
        return found

    async def _made(
        self, connection: AsyncConnection[Any], organization: OrganizationId, subjects: Sequence[str | None]
    ) -> dict[str | None, DataKey]:
        index = self._index.get(organization)
        if index is None:
            (row,) = (await self._rows(connection, organization, [INDEX])).values()
            index = unwrapped(self._keyring, organization, row)
            self._index.keep(organization, index)
        digests = {subject: subject_digest(index, subject) for subject in subjects}
        rows = await self._rows(connection, organization, sorted(digests.values()))
        return {
            subject: DataKey(DataKeyId(rows[digest][0]), unwrapped(self._keyring, organization, rows[digest]))
            for subject, digest in digests.items()
        }

    async def _rows(self, connection: AsyncConnection[Any], organization: OrganizationId, digests: Sequence[bytes]) -> dict[bytes, Row]:
        """A row for each digest, made where there is none: whoever comes first makes it, for everybody."""
        for _ in range(_TRIES_MAX):
            found = await connection.execute(
                load("access", "data_keys_by_digest"), {"organization": organization, "digests": list(digests)}
            )
            rows = {bytes(row[1]): row for row in await found.fetchall()}
            if not (missing := [digest for digest in digests if digest not in rows]):
                return rows
            new = [wrapped(self._keyring, organization, self._clock.now_ms()) for _ in missing]
            values = {
                "organization": organization, "ids": [one[0] for one in new], "digests": missing, "wrapped": [one[1] for one in new],
                "master_key_ids": [one[2] for one in new],
            }  # fmt: skip
            await connection.execute(load("access", "insert_data_keys"), values)
        raise _unavailable(RuntimeError("data keys are erased as fast as they are made"))

    def _forget(self) -> None:
        if (changes := self._changes()) != self._seen:
            self._seen = changes
            for held in (self._by_id, self._by_subject, self._index):
                held.clear()


def wrapped(keyring: Keyring, organization: OrganizationId, now_ms: int) -> tuple[DataKeyId, bytes, str]:
    """A new key: its id, the wrapped secret, the id of the master key it is under."""
    key_id = ids.data_key_id(now_ms, os.urandom(ids.RANDOM_BYTES))
    master_key_id, sealed = keyring.encrypt(os.urandom(KEY_BYTES), _bound(organization, key_id))
    return key_id, sealed, master_key_id


def unwrapped(keyring: Keyring, organization: str, row: Sequence[Any]) -> bytes:
    """The secret in a row (id, digest, wrapped, master key id). Raises `KeyringError`."""
    return keyring.decrypt(row[3], bytes(row[2]), _bound(organization, row[0]))


def rewrap(connection: Connection[Any], keyring: Keyring) -> int:
    """Put every key that is not under the newest master key under it, in the caller's transaction; how many. Raises `KeyringError`."""
    rows = connection.execute(load("access", "data_keys_under_other_keys"), {"newest": keyring.newest}).fetchall()
    for organization, *row in rows:
        master_key_id, sealed = keyring.encrypt(unwrapped(keyring, organization, row), _bound(organization, row[0]))
        connection.execute(load("access", "reseal_data_key"), {"id": row[0], "wrapped": sealed, "master_key_id": master_key_id})
    return len(rows)


def read(connection: Connection[Any], keyring: Keyring, organization: str, wanted: Sequence[DataKeyId]) -> dict[DataKeyId, DataKey]:
    """For commands. Those that are there. Raises `KeyringError`."""
    rows = connection.execute(load("access", "data_keys_by_id"), {"organization": organization, "ids": list(wanted)}).fetchall()
    return {DataKeyId(row[0]): DataKey(DataKeyId(row[0]), unwrapped(keyring, organization, row)) for row in rows}


def _bound(organization: str, key_id: str) -> bytes:
    return f"data key\n{organization}\n{key_id}".encode()


def _unavailable(error: Exception) -> ProblemError:
    log.warning("data_key.unavailable", error=str(error).splitlines()[:1])
    return ProblemError(UNAVAILABLE, "The data keys cannot be read right now. Try again in a moment.", headers={"Retry-After": "2"})
