"""Who is calling: API keys on the hot path, cached so that revocation is immediate while Redis is up and takes 5 s otherwise.

Three layers: this process (at most 5 s), Redis (5 minutes), Postgres (the truth). Every Redis round trip reads the epoch; an epoch that
changed or is missing empties the process cache before anything of that round trip is answered. Entries in Redis carry the epoch in their
name: a look-up that read Postgres before a revoke stores what it found under the old epoch, where nobody looks any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
import psycopg_pool
from starlette.requests import Request

from access import keys
from access.epoch import epoch_key, new_epoch, version_of
from access.failures import FailedAttempts
from access.key_cache import KeyCache
from access.last_used import LastUsed
from runtime.clock import Clock
from runtime.metrics import KEY_LOOKUPS, KEYS_REFUSED
from runtime.postgres import Pool
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import AccessSettings, IngestSettings
from runtime.telemetry import log
from schemas.events import Mode
from schemas.ids import OrganizationId
from schemas.problems import FORBIDDEN, INVALID_HEADER, INVALID_KEY, MISSING_KEY, ORGANIZATION_SUSPENDED, UNAVAILABLE, ProblemError

_RECONCILE_S: Final = 2.0
#: Look-ups in Postgres at once.
_LOOKUPS_MAX: Final = 4
#: Keys being looked up or waiting for it; what comes beyond is refused, so that a stopped Postgres does not gather made-up keys.
_LOOKING_MAX: Final = 1_000
#: Look-ups made again because the epoch changed meanwhile, before the caller is asked to come back.
_TRIES_MAX: Final = 5
#: Part of the names of entries in Redis: raised whenever their form changes, so that no version of this program reads another's.
_ENTRY_FORMAT: Final = 3


class Principal(NamedTuple):
    """Who a valid key speaks for."""

    key_id: str
    organization: OrganizationId
    mode: Mode
    scopes: tuple[str, ...]
    plan: str
    rate_limit_per_minute: int | None
    expires_at_ms: int | None
    suspended: bool = False
    encryption: bool = False

    def require(self, scope: str) -> Principal:
        """Raises the problem `forbidden`."""
        if scope not in self.scopes:
            raise ProblemError(FORBIDDEN, f"This API key has no scope {scope}. Use a key that has it.")
        return self


_decoder = msgspec.json.Decoder(Principal)
_lookups: Final = KEY_LOOKUPS.tally


def key_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The presented key. Raises problems: two headers could mean two callers, none means nobody."""
    found = [value for name, value in headers if name == b"x-api-key"]
    if len(found) > 1:
        raise ProblemError(INVALID_HEADER, "There is more than one X-API-Key header. Send exactly one.")
    if not found:
        raise ProblemError(MISSING_KEY, "Send your API key in the X-API-Key header.", headers={"WWW-Authenticate": "ApiKey"})
    return found[0].decode("latin-1")


def _unavailable() -> ProblemError:
    return ProblemError(UNAVAILABLE, "The key cannot be checked right now. Try again in a moment.", headers={"Retry-After": "2"})


class Authenticator:
    """Answers who a key belongs to. One per process; `tick` is set once it exists, because each needs the other."""

    tick: RedisTick

    def __init__(self, settings: IngestSettings, clock: Clock, pool: Pool, access: AccessSettings | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._pool = pool
        self._cache: KeyCache[Principal] = KeyCache(settings.key_cache_process_s)
        self._failed = FailedAttempts(clock, (access or AccessSettings()).failed_keys_per_minute_max)
        self.last_used = LastUsed(clock)
        self._epoch: bytes | None = None
        #: How often the epoch was seen to change: a caller taken as valid is looked up again when this has moved. A count and not the epoch
        #: itself, which may come back to what it was.
        self.changes = 0
        self._failures_seen = 0
        self._lookups = asyncio.Semaphore(_LOOKUPS_MAX)
        self._looking: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    def on_epoch(self, epoch: bytes | None) -> None:
        """Called with the epoch of every Redis round trip, before its answers are used."""
        if epoch is None or epoch != self._epoch:
            self._cache.clear()
        if epoch != self._epoch:
            self.changes += 1
        self._epoch = epoch

    async def moved(self) -> bool:
        """Whether a round trip made now shows another epoch. False without Redis."""
        before = self.changes
        with suppress(RedisUnavailable):
            await self.tick.touch()
        return self.changes != before

    def cached(self, key: str, address: str | None = None) -> Principal | None:
        """Who `key` belongs to if this process knows; `address` is the client's.

        Raises the problems `invalid-api-key` if it knows the key is not valid, `organization-suspended`, and `quota-exceeded` when too
        many keys from the address were not valid: a key that was never valid here is not looked up then.
        """
        if not keys.well_formed(key):
            self._failed.check(address)
            raise self._refused(address)
        hashed, now_s = keys.digest(key), self._clock.monotonic_s()
        found = self._cache.valid(hashed, now_s)
        if found is not None:
            _lookups["process"] += 1
            return self._usable(found, address)
        if not self._cache.once_valid(hashed):
            self._failed.check(address)
        if self._cache.unknown(hashed, now_s):
            raise self._refused(address)
        return None

    async def authenticate(self, key: str, address: str | None = None) -> Principal:
        """As `cached`, looked up where it is not known. Raises `unavailable` too, when neither Redis nor Postgres can tell.

        Callers with the same key share one look-up: a Redis that restarts empty must not send every request to Postgres.
        """
        principal = self.cached(key, address)
        if principal is not None:
            return principal
        hashed = keys.digest(key)
        task = self._looking.get(hashed)
        if task is None:
            if len(self._looking) >= _LOOKING_MAX:
                raise _unavailable()
            task = self._looking[hashed] = asyncio.get_running_loop().create_task(self._look_up(key, hashed))
            task.add_done_callback(lambda done: self._looked(hashed, done))
        return self._usable(await asyncio.shield(task), address)

    async def request(self, request: Request, scope: str) -> Principal:
        """For routes: the caller of `request`, with `scope`. The epoch is read last, so a revoked key is refused while Redis is up."""
        key = key_of(request.headers.raw)
        address = None if request.client is None else request.client.host
        for _ in range(_TRIES_MAX):
            before = self.changes
            principal = await self.authenticate(key, address)
            try:
                await self.tick.touch()
            except RedisUnavailable:
                return principal.require(scope)
            if self.changes == before:
                return principal.require(scope)
        raise _unavailable()

    def _usable(self, principal: Principal | None, address: str | None) -> Principal:
        if principal is None or (principal.expires_at_ms is not None and principal.expires_at_ms <= self._clock.now_ms()):
            raise self._refused(address)
        if principal.suspended:
            KEYS_REFUSED.labels("suspended").inc()
            raise ProblemError(ORGANIZATION_SUSPENDED, "The organization is suspended: none of its keys may do anything. Ask an operator.")
        self.last_used.note(principal.key_id)
        return principal

    def _refused(self, address: str | None) -> ProblemError:
        self._failed.count(address)
        KEYS_REFUSED.labels("invalid").inc()
        # One text for unknown, revoked, expired and malformed keys: the difference is nobody's business who has no valid key.
        detail = "The API key is not valid. Check it, or ask an operator for a new one."
        return ProblemError(INVALID_KEY, detail, headers={"WWW-Authenticate": "ApiKey"})

    async def _look_up(self, key: str, hashed: bytes) -> Principal | None:
        """What Redis or Postgres knows, read while the epoch stood still: callers that join in later may rely on it too."""
        for _ in range(_TRIES_MAX):
            found: Principal | None = None
            before = self.changes
            try:
                if self._entry(hashed) is None:
                    await self.renew_epoch()
                    before = self.changes
                found = await self._from_redis(hashed)
            except RedisUnavailable:
                KEY_LOOKUPS.labels("redis_unavailable").inc()
            if found is None:
                found = await self._from_postgres(key, hashed)
            if self.changes == before:
                # A refusal makes no round trip that would show a new epoch, so a suspension is asked for each time and ends at once.
                reuse = found is None or not found.suspended
                self._cache.remember(hashed, found, self._clock.monotonic_s(), reuse=reuse)
                return found
        raise _unavailable()

    def _looked(self, hashed: bytes, task: asyncio.Task[Principal | None]) -> None:
        del self._looking[hashed]
        if not task.cancelled():
            task.exception()  # whoever waited has it; who went away need not be told

    def _entry(self, hashed: bytes) -> str | None:
        """Where Redis keeps this key under the epoch we know; None while its entries cannot be trusted (see `renew_epoch`)."""
        if self._epoch is None or self.tick.failures != self._failures_seen:
            return None
        return f"triggers:{{keys}}:{_ENTRY_FORMAT}:{self._epoch.decode('latin-1')}:{hashed.hex()}"

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
        principal = Principal(
            row.id,
            row.organization,
            row.mode,
            row.scopes,
            row.plan,
            row.rate_limit_per_minute,
            row.expires_at_ms,
            row.suspended,
            row.encryption,
        )
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
        stale = failures != self._failures_seen or (current is not None and version_of(current) < version)
        if current is None:
            await self.tick.execute("SET", epoch_key(), new_epoch(version), "NX")
        elif stale:
            await self.tick.execute("SET", epoch_key(), new_epoch(version))
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


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
