"""The schemas of event types as this process knows them, and whether a payload matches. Types without a schema are not checked.

A copy of an organization's schemas is good while the revocation version it was read at is still the newest this process has read, which it
reads at most every 5 s and anew when the epoch changes: one small query serves all organizations. So while Redis is up a change holds at
once, otherwise within 5 s. Without Postgres the last copy goes on, however old: a producer is not stopped for a schema that rarely changes.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg
import psycopg_pool
from jsonschema_rs import Draft202012Validator, ValidatorMap

from access.json_schemas import compile_parts, compile_schema, parse
from access.schema_walk import Document, SchemaError
from ingest import violations
from ingest.violations import Violation
from runtime.clock import Clock
from runtime.metrics import SCHEMA_CHECKS, SCHEMA_LOADS
from runtime.postgres import Pool
from runtime.sql import load
from runtime.telemetry import log
from schemas.events import Mode
from schemas.ids import OrganizationId
from schemas.problems import SCHEMA_VIOLATION, UNAVAILABLE, ProblemError

#: Organizations remembered (live and test are two), and bytes of schemas they may have together.
_COPIES_MAX: Final = 10_000
_COPIES_BYTES_MAX: Final = 64 * 1024 * 1024
_FRESH_S: Final = 5.0
#: Postgres may take this long to answer; when it did not, it is left alone for a while.
_ANSWER_S: Final = 2.0
_RETRY_AFTER_S: Final = 1.0
_LOADS_MAX: Final = 4
#: Loads under way or waiting; what comes beyond is refused.
_LOADING_MAX: Final = 1_000
_TRIES_MAX: Final = 5
#: Digits of a decimal number, and powers of ten, up to which it is compared with a schema.
NUMBER_DIGITS_MAX: Final = 1_000

_Key = tuple[OrganizationId, Mode]


class _Schema:
    """One version of one type's schema; compiled when it is first needed."""

    def __init__(self, version: int, sha256: bytes, text: bytes) -> None:
        self.version = version
        self.sha256 = sha256
        self.text = text
        self._validator: Draft202012Validator | None = None
        self._search: tuple[Document, ValidatorMap] | None = None

    def accepts(self, payload: Any) -> bool:
        if self._validator is None:
            self._validator = compile_schema(self.text)
        return self._validator.is_valid(payload)

    def violations(self, payload: Any, clock: Clock) -> list[Violation]:
        if self._search is None:
            self._search = parse(self.text), compile_parts(self.text)
        return violations.find(*self._search, payload, clock.monotonic_s)


class Validators:
    """The schemas of an organization and mode, as of one revocation version."""

    def __init__(self, version: int, schemas: dict[str, _Schema], clock: Clock) -> None:
        self.version = version
        self._clock = clock
        self.schemas = schemas
        self.size_bytes = sum(len(schema.text) for schema in schemas.values())

    def has(self, event_type: str) -> bool:
        """Whether events of this type have to be checked."""
        return event_type in self.schemas

    def check(self, event_type: str, payload: bytes) -> None:
        """Whether `payload` (JSON, as `ingest.accept` lets it pass) matches the schema of its type; also if there is none.

        Raises the problems `schema-violation`, with `violations` and `schema_version`, and `unavailable` for a schema that cannot be read.
        """
        schema = self.schemas.get(event_type)
        if schema is None:
            return
        try:
            value = _exact(payload)
            found = [] if schema.accepts(value) else schema.violations(value, self._clock)
        except _CannotCheck as error:
            found = [Violation("/payload", str(error))]
        except SchemaError as error:  # taken by a version of this program with other rules
            SCHEMA_CHECKS.labels("unreadable").inc()
            log.error("schema.unreadable", type=event_type, schema_version=schema.version, error=str(error))
            raise ProblemError(
                UNAVAILABLE, "The schema of this type cannot be read here. Put it again.", headers={"Retry-After": "60"}
            ) from error
        SCHEMA_CHECKS.labels("invalid" if found else "valid").inc()
        if found:
            raise ProblemError(
                SCHEMA_VIOLATION,
                f"The payload does not match version {schema.version} of the schema of its type. Mend what `violations` lists.",
                members={"violations": [one._asdict() for one in found], "schema_version": schema.version},
            )


class _Read(NamedTuple):
    """The newest revocation version this process has read, when it began to, and what `changes` stood at then."""

    version: int
    at_s: float
    changes: int


class Catalogue:
    """One per process. `changes` tells how often the epoch was seen to change (`access.auth.Authenticator.changes`)."""

    def __init__(self, pool: Pool, clock: Clock, changes: Callable[[], int]) -> None:
        self._pool = pool
        self._clock = clock
        self._changes = changes
        self._copies: OrderedDict[_Key, Validators] = OrderedDict()
        self._size_bytes = 0
        self._read: _Read | None = None
        self._away = False
        self._retry_at_s = float("-inf")
        self._loads = asyncio.Semaphore(_LOADS_MAX)
        self._loading: dict[_Key | None, asyncio.Task[None]] = {}

    def known(self, organization: OrganizationId, mode: Mode) -> Validators | None:
        """The copy if it is good now; None: `await validators(…)`."""
        key = (organization, mode)
        copy, read = self._copies.get(key), self._read
        if copy is None:
            return None
        self._copies.move_to_end(key)
        now_s = self._clock.monotonic_s()
        if read is not None and copy.version == read.version and now_s - read.at_s < _FRESH_S and read.changes == self._changes():
            return copy
        if not self._away:
            return None
        if now_s >= self._retry_at_s and key not in self._loading:  # nobody waits for a server that did not answer a moment ago
            self._start(key)
        return copy

    async def validators(self, organization: OrganizationId, mode: Mode) -> Validators:
        """The copy, read anew if it may be old. Raises the problem `unavailable` if Postgres is away and there is no copy."""
        key = (organization, mode)
        for _ in range(_TRIES_MAX):
            good = self.known(organization, mode)
            if good is not None:
                return good
            copy = self._copies.get(key)
            if self._away and self._clock.monotonic_s() < self._retry_at_s:
                break
            # What is old is first asked for the version alone, together with everybody else's; only what did change is read.
            await self._once(None if copy is not None and not self._outdated(copy) else key)
        copy = self._copies.get(key)
        if copy is None:
            raise _unavailable()
        return copy

    def _outdated(self, copy: Validators) -> bool:
        return self._read is not None and copy.version != self._read.version

    async def _once(self, key: _Key | None) -> None:
        """Load `key`, or with None the version; callers who want the same share it."""
        if key not in self._loading and len(self._loading) >= _LOADING_MAX:
            raise _unavailable()
        await asyncio.shield(self._loading.get(key) or self._start(key))

    def _start(self, key: _Key | None) -> asyncio.Task[None]:
        if self._away:
            self._retry_at_s = self._clock.monotonic_s() + _ANSWER_S + _RETRY_AFTER_S  # one attempt at a time
        task = self._loading[key] = asyncio.get_running_loop().create_task(self._load(key))
        task.add_done_callback(lambda done: self._loaded(key, done))
        return task

    def _loaded(self, key: _Key | None, task: asyncio.Task[None]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; who went away need not be told

    async def _load(self, key: _Key | None) -> None:
        try:
            async with self._loads:
                began = _Read(0, self._clock.monotonic_s(), self._changes())
                async with asyncio.timeout(_ANSWER_S), self._pool.connection() as connection:
                    if key is None:
                        cursor = await connection.execute(load("ingest", "revocation_version"))
                    else:
                        kept = self._copies.get(key)
                        known = {} if kept is None else {schema.sha256: schema for schema in kept.schemas.values()}
                        values = {"organization": key[0], "mode": key[1], "known": list(known)}
                        cursor = await connection.execute(load("ingest", "find_schemas"), values)
                    rows = await cursor.fetchall()
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout, TimeoutError) as error:
            SCHEMA_LOADS.labels("unavailable").inc()
            log.warning("schemas.load_failed", error=repr(error))
            self._away, self._retry_at_s = True, self._clock.monotonic_s() + _RETRY_AFTER_S
            return
        self._away = False
        if not rows:
            raise RuntimeError("control.revocation is empty: run `triggers migrate`")
        SCHEMA_LOADS.labels("version" if key is None else "schemas").inc()
        version = int(rows[0][0])
        if key is not None:
            self._keep(key, Validators(version, dict(_schema_of(row, known) for row in rows if row[1] is not None), self._clock))
        if self._read is None or began.at_s >= self._read.at_s:  # one that began earlier saw an older version
            self._read = began._replace(version=version)

    def _keep(self, key: _Key, copy: Validators) -> None:
        replaced = self._copies.pop(key, None)
        self._size_bytes += copy.size_bytes - (0 if replaced is None else replaced.size_bytes)
        self._copies[key] = copy
        while len(self._copies) > 1 and (len(self._copies) > _COPIES_MAX or self._size_bytes > _COPIES_BYTES_MAX):
            _, dropped = self._copies.popitem(last=False)
            self._size_bytes -= dropped.size_bytes


def _schema_of(row: tuple[Any, ...], known: dict[bytes, _Schema]) -> tuple[str, _Schema]:
    """(type, schema) of a row; what was compiled is used again."""
    _, event_type, version, sha256, text = row
    kept = known.get(bytes(sha256))
    if kept is not None and kept.version == version:
        return event_type, kept
    return event_type, _Schema(version, bytes(sha256), kept.text if kept is not None else bytes(text))


class _CannotCheck(ValueError):
    """A payload that different readers would take differently, or that cannot be compared exactly."""


def _exact(payload: bytes) -> Any:
    """The value with every digit of its numbers. Raises `_CannotCheck`."""
    try:
        return json.loads(payload.decode(), parse_float=_decimal, object_pairs_hook=_each_name_once)
    except RecursionError as error:
        raise _CannotCheck("is nested too deep to be checked") from error
    except _CannotCheck:
        raise
    except ValueError as error:  # Python reads integers of up to 4,300 digits
        raise _CannotCheck("has a number of too many digits to be checked: send it as a string") from error


def _decimal(digits: str) -> Decimal:
    if len(digits) > NUMBER_DIGITS_MAX:
        raise _CannotCheck(f"has a number of more than {NUMBER_DIGITS_MAX} digits: send it as a string")
    try:
        number = Decimal(digits)
    except ArithmeticError as error:
        raise _CannotCheck("has a number that is too large or too small: send it as a string") from error
    if abs(number.adjusted()) > NUMBER_DIGITS_MAX:
        raise _CannotCheck("has a number that is too large or too small: send it as a string")
    return number


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _CannotCheck("has an object with a name twice, which readers take differently: send each name once (RFC 8259 section 4)")
    return made


def _unavailable() -> ProblemError:
    detail = "The schemas of your event types cannot be read right now. Try again in a moment."
    return ProblemError(UNAVAILABLE, detail, headers={"Retry-After": "2"}, members={"outcome": "not_appended"})
