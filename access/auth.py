"""Who is calling: API keys on the hot path, cached so that revocation is immediate while Redis is up and takes 5 s otherwise.

Three layers: this process (at most 5 s), Redis (5 minutes), Postgres (the truth). Every Redis round trip reads the epoch; an epoch that
changed or is missing empties the process cache before anything of that round trip is answered. Entries in Redis carry the epoch in their
name: a look-up that read Postgres before a revoke stores what it found under the old epoch, where nobody looks any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
import psycopg_pool
from starlette.requests import Request

from access import keys
from runtime.clock import Clock
from runtime.metrics import KEY_LOOKUPS
from runtime.postgres import Pool
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import IngestSettings
from runtime.telemetry import log
from schemas.events import Mode
from schemas.ids import OrganizationId
from schemas.problems import FORBIDDEN, INVALID_HEADER, INVALID_KEY, MISSING_KEY, UNAVAILABLE, ProblemError

_CACHED_MAX: Final = 10_000
#: A key that was not found is remembered this long in the process, so that a client in a loop does not load Postgres.
_NEGATIVE_S: Final = 1.0
_RECONCILE_S: Final = 2.0
#: Look-ups in Postgres at once.
_LOOKUPS_MAX: Final = 4


def epoch_key() -> str:
    """The Redis key of the epoch."""
    return "triggers:{keys}:epoch"


def epoch_value(version: int, nonce: bytes) -> str:
    """An epoch that was never used before: the revocation version and a random part."""
    return f"{version}:{nonce.hex()}"


class Principal(NamedTuple):
    """Who a valid key speaks for."""

    key_id: str
    organization: OrganizationId
    mode: Mode
    scopes: tuple[str, ...]
    plan: str
    rate_limit_per_minute: int | None
    expires_at_ms: int | None

    def require(self, scope: str) -> Principal:
        """Raises the problem `forbidden`."""
        if scope not in self.scopes:
            raise ProblemError(FORBIDDEN, f"This API key has no scope {scope}. Use a key that has it.")
        return self


class _Cached(NamedTuple):
    principal: Principal | None
    until_s: float


_decoder = msgspec.json.Decoder(Principal)


def key_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The presented key. Raises problems: two headers could mean two callers, none means nobody."""
    found = [value for name, value in headers if name == b"x-api-key"]
    if len(found) > 1:
        raise ProblemError(INVALID_HEADER, "There is more than one X-API-Key header. Send exactly one.")
    if not found:
        raise ProblemError(MISSING_KEY, "Send your API key in the X-API-Key header.", headers={"WWW-Authenticate": "ApiKey"})
    return found[0].decode("latin-1")


def _refused() -> ProblemError:
    # One text for unknown, revoked, expired and malformed keys: the difference is nobody's business who has no valid key.
    return ProblemError(
        INVALID_KEY, "The API key is not valid. Check it, or ask an operator for a new one.", headers={"WWW-Authenticate": "ApiKey"}
    )


class Authenticator:
    """Answers who a key belongs to. One per process; `tick` is set once it exists, because each needs the other."""

    tick: RedisTick

    def __init__(self, settings: IngestSettings, clock: Clock, pool: Pool) -> None:
        self._settings = settings
        self._clock = clock
        self._pool = pool
        self._cache: dict[bytes, _Cached] = {}
        self._epoch: bytes | None = None
        self._failures_seen = 0
        self._lookups = asyncio.Semaphore(_LOOKUPS_MAX)

    def on_epoch(self, epoch: bytes | None) -> None:
        """Called with the epoch of every Redis round trip, before its answers are used."""
        if epoch is None or epoch != self._epoch:
            self._cache.clear()
        self._epoch = epoch

    def cached(self, key: str) -> Principal | None:
        """Who `key` belongs to if this process knows. Raises the problem `invalid-api-key` if it knows the key is not valid."""
        if not keys.well_formed(key):
            raise _refused()
        found = self._cache.get(keys.digest(key))
        if found is None or found.until_s <= self._clock.monotonic_s():
            return None
        KEY_LOOKUPS.labels("process").inc()
        return self._valid(found.principal)

    def epoch(self) -> bytes | None:
        """Changes whenever what `cached` said may no longer hold."""
        return self._epoch

    async def authenticate(self, key: str) -> Principal:
        """Raises the problems `invalid-api-key` and, when neither Redis nor Postgres can tell, `unavailable`."""
        principal = self.cached(key)
        if principal is not None:
            return principal
        hashed = keys.digest(key)
        try:
            if (principal := await self._from_redis(hashed)) is not None:
                return self._valid(principal)
        except RedisUnavailable:
            KEY_LOOKUPS.labels("redis_unavailable").inc()
        return self._valid(await self._from_postgres(key, hashed))

    async def request(self, request: Request, scope: str) -> Principal:
        """For routes: the caller of `request`, with `scope`. The epoch is read first, so a revoked key is refused while Redis is up."""
        key = key_of(request.headers.raw)
        principal = self.cached(key)
        if principal is not None:
            before = self._epoch
            try:
                await self.tick.touch()
            except RedisUnavailable:
                return principal.require(scope)
            if self._epoch == before and before is not None:
                return principal.require(scope)
        return (await self.authenticate(key)).require(scope)

    def _valid(self, principal: Principal | None) -> Principal:
        if principal is None or (principal.expires_at_ms is not None and principal.expires_at_ms <= self._clock.now_ms()):
            raise _refused()
        return principal

    def _remember(self, hashed: bytes, principal: Principal | None) -> None:
        if len(self._cache) >= _CACHED_MAX:
            self._cache.clear()
        lifetime_s = self._settings.key_cache_process_s if principal is not None else _NEGATIVE_S
        self._cache[hashed] = _Cached(principal, self._clock.monotonic_s() + lifetime_s)

    def _entry(self, hashed: bytes) -> str | None:
        """Where Redis keeps this key under the epoch we know; None while its entries cannot be trusted (see `keep_epoch`)."""
        if self._epoch is None or self.tick.failures != self._failures_seen:
            return None
        return f"triggers:{{keys}}:{self._epoch.decode()}:{hashed.hex()}"

    async def _from_redis(self, hashed: bytes) -> Principal | None:
        if self._entry(hashed) is None:
            await self.renew_epoch()
        entry = self._entry(hashed)
        if entry is None:
            return None
        epoch = self._epoch
        value = await self.tick.execute("GET", entry)
        if value is None or self._epoch != epoch:
            return None
        KEY_LOOKUPS.labels("redis").inc()
        principal = _decoder.decode(value)
        self._remember(hashed, principal)
        return principal

    async def _from_postgres(self, key: str, hashed: bytes) -> Principal | None:
        entry, epoch = self._entry(hashed), self._epoch  # read before Postgres: a revoke in between makes the entry unreachable
        try:
            async with self._lookups, self._pool.connection() as connection:
                row = keys.match(await keys.find(connection, keys.prefix(key)), hashed)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            KEY_LOOKUPS.labels("unavailable").inc()
            log.warning("key.lookup_failed", error=str(error))
            raise ProblemError(
                UNAVAILABLE, "The key cannot be checked right now. Try again in a moment.", headers={"Retry-After": "2"}
            ) from error
        KEY_LOOKUPS.labels("postgres").inc()
        principal = None
        if row is not None and not row.revoked:
            principal = Principal(row.id, row.organization, row.mode, row.scopes, row.plan, row.rate_limit_per_minute, row.expires_at_ms)
        if self._epoch == epoch:
            self._remember(hashed, principal)
        if principal is not None and entry is not None:
            stored = self.tick.execute("SET", entry, msgspec.json.encode(principal), "EX", int(self._settings.key_cache_redis_s))
            stored.add_done_callback(_ignore)
        return principal

    async def renew_epoch(self) -> None:
        """Bring Redis's epoch to Postgres's revocation version, and to a new value after any failure of Redis: what it held before may be
        older than a revoke it was not told of. Raises `RedisUnavailable`."""
        failures = self.tick.failures
        try:
            async with self._pool.connection() as connection:
                version = await keys.revocation_version(connection)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            raise RedisUnavailable("the epoch cannot be checked without Postgres") from error
        current = await self.tick.execute("GET", epoch_key())
        stale = failures != self._failures_seen or (current is not None and int(bytes(current).split(b":")[0]) < version)
        if current is None:
            await self.tick.execute("SET", epoch_key(), epoch_value(version, os.urandom(8)), "NX")
        elif stale:
            await self.tick.execute("SET", epoch_key(), epoch_value(version, os.urandom(8)))
        if current is None or stale:
            await self.tick.touch()
        self._failures_seen = failures

    async def keep_epoch(self) -> None:
        """A task that tells Redis of revokes it missed, every 2 s, for as long as the process lives."""
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self.renew_epoch()
            await asyncio.sleep(_RECONCILE_S)


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
