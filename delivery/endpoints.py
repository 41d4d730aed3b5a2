"""Endpoints as delivery needs them: where to post, which types, and the secrets that sign. Postgres is waited for, never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from access import endpoint_schedules, event_filters
from access.secrets import Keyring
from delivery.waiting import until_postgres_answers
from runtime.clock import Clock
from runtime.postgres import Pool
from runtime.sql import load
from schemas.ids import EndpointId, EventId

#: Why nothing is attempted; a class of `schemas.deliveries.Attempted` and a reason of a dead letter.
Absent = Literal["endpoint_missing", "endpoint_disabled"]

#: An endpoint looked up for a retry serves others for this long: bursts of retries are one query a second, not thousands.
_CACHE_S: Final = 1.0
_CACHED_MAX: Final = 10_000


class LegacySignature(NamedTuple):
    """A signature in another sender's form, besides the standard one: the header's name and the scheme's (`delivery.sign`)."""

    header: str
    scheme: str


class Endpoint(NamedTuple):
    """`schedule_s`: pauses before attempts 2, 3, …, whatever name they go by. None elsewhere: what the worker is set to."""

    id: EndpointId
    organization: str
    mode: str
    url: str
    event_types: tuple[str, ...] | None
    secrets: tuple[bytes, ...]
    headers: Mapping[str, str] = MappingProxyType({})
    rate_per_minute: int | None = None
    concurrency: int | None = None
    schedule_s: tuple[float, ...] = ()
    deadline_s: float | None = None
    legacy_signature: LegacySignature | None = None
    enabled: bool = True
    failing_since_ms: int | None = None
    fifo: bool = False
    fifo_block: bool = False

    def takes(self, event_type: str) -> bool:
        return event_filters.takes(self.event_types, event_type)


Owned = dict[tuple[str, str], list[Endpoint]]


class Endpoints:
    """Look-ups of one worker. Every method waits for Postgres as long as it takes: our outage costs an endpoint no attempt."""

    def __init__(self, pool: Pool, keyring: Keyring, clock: Clock, worker: str, schedule_s: Sequence[float]) -> None:
        """`schedule_s`: the pauses of endpoints that have chosen no schedule."""
        self._pool = pool
        self._keyring = keyring
        self._clock = clock
        self._worker = worker
        self._schedule_s = tuple(schedule_s)
        self._cache: dict[EndpointId, tuple[float, Endpoint | None]] = {}
        self._looking: dict[EndpointId, asyncio.Task[Endpoint | None]] = {}
        #: Endpoints as they were last made, with the rows they were made of: to open a secret again costs more than to compare.
        self._made: dict[EndpointId, tuple[Sequence[Any], Endpoint]] = {}
        #: Owners that the next query is for, its answer, and the query under way.
        self._wanted: set[tuple[str, str]] = set()
        self._next: asyncio.Task[Owned] | None = None
        self._asking = asyncio.Lock()

    async def of(self, owners: Iterable[tuple[str, str]]) -> Owned:
        """Endpoints by (organization, mode), disabled ones and those of other owners too: always fresh, read after it was asked.

        One query at a time: all who ask while it is under way are answered by the next one.
        """
        asked = set(owners)
        if not asked:
            return {}
        self._wanted |= asked
        if self._next is None:
            self._next = asyncio.create_task(self._of_wanted())
        return await asyncio.shield(self._next)

    async def _of_wanted(self) -> Owned:
        async with self._asking:
            wanted, self._wanted, self._next = sorted(self._wanted), set(), None
            return await self._owned(wanted)

    async def _owned(self, owners: Sequence[tuple[str, str]]) -> Owned:
        values = {"organizations": [o for o, _ in owners], "modes": [m for _, m in owners]}
        found: Owned = {}
        for endpoint in await self._find("endpoints_of", values):
            found.setdefault((endpoint.organization, endpoint.mode), []).append(endpoint)
            self._remember(endpoint.id, endpoint)
        return found

    async def get(self, endpoint_id: EndpointId, *, disabled_too: bool = False, fresh: bool = False) -> Endpoint | None:
        """One endpoint; None if it is deleted or, without `disabled_too`, disabled. `fresh`: it may have been enabled just now."""
        endpoint = await self._known(endpoint_id, fresh=fresh)
        return endpoint if endpoint is not None and (endpoint.enabled or disabled_too) else None

    async def why_absent(self, endpoint_id: EndpointId) -> Absent:
        """Of an endpoint that `get` did not give."""
        return "endpoint_missing" if await self._known(endpoint_id) is None else "endpoint_disabled"

    async def _known(self, endpoint_id: EndpointId, *, fresh: bool = False) -> Endpoint | None:
        """Disabled ones too. Who asks while it is looked up waits for that look-up: what was put off for an endpoint comes back all at
        once.
        """
        cached = self._cache.get(endpoint_id)
        if cached is not None and cached[0] > self._clock.monotonic_s() and not fresh:
            return cached[1]
        looking = None if fresh else self._looking.get(endpoint_id)
        if looking is None:
            looking = self._looking[endpoint_id] = asyncio.create_task(self._look_up(endpoint_id))
        return await asyncio.shield(looking)

    async def _look_up(self, endpoint_id: EndpointId) -> Endpoint | None:
        try:
            found = await self._find("endpoints_by_id", {"ids": [endpoint_id]})
            endpoint = found[0] if found else None
            if self._looking.get(endpoint_id) is asyncio.current_task():  # else it was changed meanwhile
                self._remember(endpoint_id, endpoint)
            return endpoint
        finally:
            if self._looking.get(endpoint_id) is asyncio.current_task():
                del self._looking[endpoint_id]

    async def there(self, ids: Sequence[EndpointId]) -> dict[EndpointId, Endpoint]:
        """Those of them that are not deleted, disabled ones too; always fresh."""
        found = await self._find("endpoints_by_id", {"ids": list(ids)}) if ids else []
        there = {endpoint.id: endpoint for endpoint in found}
        for endpoint_id in ids:
            self._looking.pop(endpoint_id, None)  # a look-up that began before this one must not bring back what is gone
            self._remember(endpoint_id, there.get(endpoint_id))
        return there

    async def note_blocked(self, endpoint_id: EndpointId, event_id: EventId, at_ms: int) -> None:
        """A FIFO endpoint waits for this event, whose schedule is used up."""
        await self._change("note_blocked", endpoint_id, event_id=event_id, at_ms=at_ms)

    async def note_unblocked(self, endpoint_id: EndpointId) -> None:
        await self._change("note_unblocked", endpoint_id)

    async def disable_gone(self, endpoint_id: EndpointId) -> bool:
        """Whether it was enabled until now."""
        return await self._change("disable_gone", endpoint_id)

    async def note_failing(self, endpoint_id: EndpointId, since_ms: int) -> None:
        """The first failure after a success. An earlier one that is noted stays."""
        await self._change("note_failing", endpoint_id, since_ms=since_ms)

    async def note_recovered(self, endpoint_id: EndpointId) -> None:
        await self._change("note_recovered", endpoint_id)

    async def fails_since(self, endpoint_id: EndpointId, before_ms: int) -> bool:
        """Whether it is enabled and noted as failing since before then."""
        return bool(await self._find("endpoints_failing", {"ids": [endpoint_id], "before_ms": before_ms}))

    async def disable_failing(self, endpoint_id: EndpointId, before_ms: int) -> bool:
        """Whether it was enabled until now, and noted as failing since before then."""
        return await self._change("disable_failing", endpoint_id, before_ms=before_ms)

    async def _change(self, statement: str, endpoint_id: EndpointId, **values: Any) -> bool:
        """One statement with its audit row, where it has one; whether it changed anything."""

        async def change(connection: Any) -> bool:
            done = await connection.execute(load("delivery", statement), {"id": endpoint_id, "actor": f"delivery:{self._worker}", **values})
            return bool(done.rowcount > 0)

        changed = await until_postgres_answers(self._pool, change)
        self._cache.pop(endpoint_id, None)
        self._looking.pop(endpoint_id, None)
        return changed

    def _remember(self, endpoint_id: EndpointId, endpoint: Endpoint | None) -> None:
        if len(self._cache) >= _CACHED_MAX:
            self._cache.clear()
        self._cache[endpoint_id] = (self._clock.monotonic_s() + _CACHE_S, endpoint)

    async def _find(self, statement: str, values: dict[str, Any]) -> list[Endpoint]:
        async def find(connection: Any) -> list[Endpoint]:
            rows = await (await connection.execute(load("delivery", statement), values)).fetchall()
            return [self._endpoint(row) for row in rows if row[-1]]  # what has no secret cannot be signed for

        return await until_postgres_answers(self._pool, find)

    def _endpoint(self, row: Sequence[Any]) -> Endpoint:
        known = self._made.get(row[0])
        if known is not None and known[0] == row:
            return known[1]
        if len(self._made) >= _CACHED_MAX:
            self._made.clear()
        made = self._read(row)
        self._made[made.id] = (row, made)
        return made

    def _read(self, row: Sequence[Any]) -> Endpoint:
        organization, mode, url, event_types, headers, rate_per_minute, concurrency, schedule, schedule_s, deadline_s, legacy = row[1:12]
        enabled, failing_since_ms, fifo, fifo_block, ciphertexts, master_key_ids = row[12:]
        sealed = zip(ciphertexts, master_key_ids, strict=True)
        secrets = [self._keyring.decrypt(master_key_id, bytes(ciphertext), row[0].encode()) for ciphertext, master_key_id in sealed]
        return Endpoint(
            row[0],
            organization,
            mode,
            url,
            tuple(event_types) if event_types else None,
            tuple(secrets),
            headers,
            rate_per_minute,
            concurrency,
            endpoint_schedules.resolve(schedule, schedule_s, self._schedule_s),
            deadline_s,
            None if legacy is None else LegacySignature(legacy["header"], legacy["scheme"]),
            enabled,
            failing_since_ms,
            fifo,
            fifo_block,
        )
