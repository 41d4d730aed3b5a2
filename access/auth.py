"""Who is calling: API keys on the hot path, cached so that revocation is immediate while Redis is up and takes 5 s otherwise.

Three layers: this process (at most 5 s), Redis (5 minutes), Postgres (the truth). Every Redis round trip reads the epoch; an epoch that
changed or is missing empties the process cache before anything of that round trip is answered. Entries in Redis carry the epoch in their
name: a look-up that read Postgres before a revoke stores what it found under the old epoch, where nobody looks any more.
"""

from __future__ import annotations

import asyncio
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
#: Keys being looked up or waiting for it; what comes beyond is refused, so that a stopped Postgres does not gather made-up keys.
_LOOKING_MAX: Final = 1_000
#: Look-ups made again because the epoch changed meanwhile, before the caller is asked to come back.
_TRIES_MAX: Final = 5
_VERSION_DIGITS_MAX: Final = 20


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
    principal: Principal
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


def _unavailable() -> ProblemError:
    return ProblemError(UNAVAILABLE, "The key cannot be checked right now. Try again in a moment.", headers={"Retry-After": "2"})


class Authenticator:
    """Answers who a key belongs to. One per process; `tick` is set once it exists, because each needs the other."""

    tick: RedisTick

    def __init__(self, settings: IngestSettings, clock: Clock, pool: Pool) -> None:
        self._settings = settings
        self._clock = clock
        self._pool = pool
        self._valid_keys: dict[bytes, _Cached] = {}
        # Apart from the valid ones, so that a flood of made-up keys drives none of those out.
        self._unknown_until_s: dict[bytes, float] = {}
        self._epoch: bytes | None = None
        self._changes = 0
        self._failures_seen = 0
        self._lookups = asyncio.Semaphore(_LOOKUPS_MAX)
        self._looking: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    def on_epoch(self, epoch: bytes | None) -> None:
        """Called with the epoch of every Redis round trip, before its answers are used."""
        if epoch is None or epoch != self._epoch:
            self._valid_keys.clear()
            self._unknown_until_s.clear()
        if epoch != self._epoch:
            self._changes += 1
        self._epoch = epoch

    @property
    def changes(self) -> int:
        """How often the epoch was seen to change: a caller taken as valid is looked up again when this has moved.

        A count and not the epoch itself, because a round trip that was overtaken by a later one shows an old epoch again.
        """
        return self._changes

    def cached(self, key: str) -> Principal | None:
        """Who `key` belongs to if this process knows. Raises the problem `invalid-api-key` if it knows the key is not valid."""
        if not keys.well_formed(key):
            raise _refused()
        hashed, now_s = keys.digest(key), self._clock.monotonic_s()
        if self._unknown_until_s.get(hashed, now_s) > now_s:
            raise _refused()
        found = self._valid_keys.get(hashed)
        if found is None or found.until_s <= now_s:
            return None
        KEY_LOOKUPS.labels("process").inc()
        return self._unexpired(found.principal)

    async def authenticate(self, key: str) -> Principal:
        """Raises the problems `invalid-api-key` and, when neither Redis nor Postgres can tell, `unavailable`.

        Callers with the same key share one look-up: a Redis that restarts empty must not send every request to Postgres.
        """
        principal = self.cached(key)
        if principal is not None:
            return principal
        hashed = keys.digest(key)
        task = self._looking.get(hashed)
        if task is None:
            if len(self._looking) >= _LOOKING_MAX:
                raise _unavailable()
            task = self._looking[hashed] = asyncio.get_running_loop().create_task(self._look_up(key, hashed))
            task.add_done_callback(lambda done: self._looked(hashed, done))
        return self._unexpired(await asyncio.shield(task))

    async def request(self, request: Request, scope: str) -> Principal:
        """For routes: the caller of `request`, with `scope`. The epoch is read last, so a revoked key is refused while Redis is up."""
        key = key_of(request.headers.raw)
        for _ in range(_TRIES_MAX):
            before = self._changes
            principal = await self.authenticate(key)
            try:
                await self.tick.touch()
            except RedisUnavailable:
                return principal.require(scope)
            if self._changes == before:
                return principal.require(scope)
        raise _unavailable()

    def _unexpired(self, principal: Principal | None) -> Principal:
        if principal is None or (principal.expires_at_ms is not None and principal.expires_at_ms <= self._clock.now_ms()):
            raise _refused()
        return principal

    async def _look_up(self, key: str, hashed: bytes) -> Principal | None:
        """What Redis or Postgres knows, read while the epoch stood still: callers that join in later may rely on it too."""
        for _ in range(_TRIES_MAX):
            found: Principal | None = None
            before = self._changes
            try:
                if self._entry(hashed) is None:
                    await self.renew_epoch()
                    before = self._changes
                found = await self._from_redis(hashed)
            except RedisUnavailable:
                KEY_LOOKUPS.labels("redis_unavailable").inc()
            if found is None:
                found = await self._from_postgres(key, hashed)
            if self._changes == before:
                self._remember(hashed, found)
                return found
        raise _unavailable()

    def _looked(self, hashed: bytes, task: asyncio.Task[Principal | None]) -> None:
        del self._looking[hashed]
        if not task.cancelled():
            task.exception()  # whoever waited has it; who went away need not be told

    def _remember(self, hashed: bytes, principal: Principal | None) -> None:
        now_s = self._clock.monotonic_s()
        if principal is None:
            if len(self._unknown_until_s) >= _CACHED_MAX:
                self._unknown_until_s.clear()
            self._unknown_until_s[hashed] = now_s + _NEGATIVE_S
            return
        if len(self._valid_keys) >= _CACHED_MAX:
            self._valid_keys.clear()
        self._valid_keys[hashed] = _Cached(principal, now_s + self._settings.key_cache_process_s)

    def _entry(self, hashed: bytes) -> str | None:
        """Where Redis keeps this key under the epoch we know; None while its entries cannot be trusted (see `renew_epoch`)."""
        if self._epoch is None or self.tick.failures != self._failures_seen:
            return None
        return f"triggers:{{keys}}:{self._epoch.decode('latin-1')}:{hashed.hex()}"

    async def _from_redis(self, hashed: bytes) -> Principal | None:
        entry = self._entry(hashed)
        value = None if entry is None else await self.tick.execute("GET", entry)
        if value is None:
            return None
        try:
            principal = _decoder.decode(value)
        except msgspec.DecodeError:  # written by another version of this program: Postgres knows, and the entry is written again
            return None
        KEY_LOOKUPS.labels("redis").inc()
        return principal

    async def _from_postgres(self, key: str, hashed: bytes) -> Principal | None:
        entry = self._entry(hashed)  # read before Postgres: a revoke in between makes the entry unreachable
        try:
            async with self._lookups, self._pool.connection() as connection:
                row = keys.match(await keys.find(connection, keys.prefix(key)), hashed)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            KEY_LOOKUPS.labels("unavailable").inc()
            log.warning("key.lookup_failed", error=str(error))
            raise _unavailable() from error
        KEY_LOOKUPS.labels("postgres").inc()
        if row is None or row.revoked:
            return None
        principal = Principal(row.id, row.organization, row.mode, row.scopes, row.plan, row.rate_limit_per_minute, row.expires_at_ms)
        if entry is not None:
            stored = self.tick.execute("SET", entry, msgspec.json.encode(principal), "EX", int(self._settings.key_cache_redis_s))
            stored.add_done_callback(_ignore)
        return principal

    async def renew_epoch(self) -> None:
        """Bring Redis's epoch to Postgres's revocation version, and to a new value after any failure of Redis: what it held before may be
        older than a revoke it was not told of. Callers share one renewal. Raises `RedisUnavailable`."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
            self._renewing.add_done_callback(_ignore)
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        failures = self.tick.failures
        try:
            async with self._pool.connection() as connection:
                version = await keys.revocation_version(connection)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            raise RedisUnavailable("the epoch cannot be checked without Postgres") from error
        current = await self.tick.execute("GET", epoch_key())
        stale = failures != self._failures_seen or (current is not None and _version_of(current) < version)
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
            try:
                await self.renew_epoch()
            except RedisUnavailable:
                pass  # the tick has said so
            except Exception as error:  # noqa: BLE001 - without this loop a revoke that Redis missed would never reach the caches
                log.error("epoch.not_kept", exc_info=error)
            await asyncio.sleep(_RECONCILE_S)


def _version_of(epoch: bytes) -> int:
    """The revocation version in an epoch; below every version for a value that is none of ours."""
    version = epoch.split(b":")[0]
    return int(version) if version.isdigit() and len(version) < _VERSION_DIGITS_MAX else -1


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
