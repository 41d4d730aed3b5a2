"""A clock, a Redis and a control plane whose answers are chosen, for the tests of `access.auth`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from access import keys
from access.auth import Authenticator, Principal
from access.epoch import epoch_key
from access.keys import KeyRow
from runtime.redis import RedisUnavailable
from schemas.ids import ApiKeyId, OrganizationId

KEY, OTHER = (keys.generate("live", bytes([n]) * keys.RANDOM_BYTES) for n in (1, 2))
KEY_ID = ApiKeyId("key_1")
PRINCIPAL = Principal(KEY_ID, OrganizationId("org_1"), "live", ("events:write",), "free", None, None)


class Clock:
    now_s = 1_000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


class Redis:
    """The tick over a dictionary: every round trip shows the epoch first, as the real one does."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.data: dict[str, bytes] = {}
        self.up = True
        self.failures = 0
        self.read_only = False
        self.trips = 0
        self._authenticator = authenticator

    def execute(self, *command: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._answer, command, future)
        return future

    def touch(self) -> asyncio.Future[Any]:
        return self.execute("PING")

    def _answer(self, command: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        if future.done():
            return
        if not self.up:
            self.failures += 1
            future.set_exception(RedisUnavailable("down"))
            return
        self.trips += 1
        self._authenticator.on_epoch(self.data.get(epoch_key()))
        if command[0] == "SET" and self.read_only:
            future.set_exception(RedisUnavailable("OOM command not allowed"))
            return
        if command[0] == "SET" and not (command[-1] == "NX" and command[1] in self.data):
            self.data[command[1]] = command[2] if isinstance(command[2], bytes) else command[2].encode()
        future.set_result(self.data.get(command[1]) if command[0] == "GET" else True)


class Control:
    """The control plane: which keys there are, and how often it was asked. `gate` holds a look-up after it has read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = {keys.prefix(KEY): [row(KEY)]}
        self.version = 0
        self.asked = 0
        self.versions_asked = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        monkeypatch.setattr(keys, "find", self._find)
        monkeypatch.setattr(keys, "revocation_version", self._version)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        if self.error is not None:
            raise self.error
        yield

    async def _find(self, _: Any, prefix: str) -> list[KeyRow]:
        self.asked += 1
        found = list(self.rows.get(prefix, []))
        await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
        return found

    async def _version(self, _: Any) -> int:
        self.versions_asked += 1
        await asyncio.sleep(0)
        return self.version

    def revoke(self) -> None:
        self.rows = {keys.prefix(KEY): [row(KEY, revoked=True)]}
        self.version += 1


def row(key: str, *, revoked: bool = False, expires_at_ms: int | None = None) -> KeyRow:
    return KeyRow(KEY_ID, PRINCIPAL.organization, "live", "n", keys.digest(key), PRINCIPAL.scopes, expires_at_ms, revoked, "free", None)
