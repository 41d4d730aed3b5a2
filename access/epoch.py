"""The epoch: a value in Redis that changes with everything that changes what a key may do, so that caches of keys notice at once."""

from __future__ import annotations

import os
from typing import Any, Final

import redis
from psycopg import Connection

from runtime.settings import RedisSettings
from runtime.sql import load

_VERSION_DIGITS_MAX: Final = 20
_TELL_TIMEOUT_S: Final = 2.0


def epoch_key() -> str:
    """The Redis key of the epoch."""
    return "triggers:{keys}:epoch"


def new_epoch(version: int) -> str:
    """An epoch that was never used before: the revocation version and a random part."""
    return f"{version}:{os.urandom(8).hex()}"


def version_of(epoch: bytes) -> int:
    """The revocation version in an epoch; below every version for a value that is none of ours."""
    version = epoch.split(b":")[0]
    return int(version) if version.isdigit() and len(version) < _VERSION_DIGITS_MAX else -1


def raise_version(connection: Connection[Any]) -> int:
    """In the transaction of a change that caches of keys must see. Returns the version to tell them (see `tell_caches`)."""
    return _version(connection, "raise_revocation_version")


def current_version(connection: Connection[Any]) -> int:
    return _version(connection, "revocation_version")


def _version(connection: Connection[Any], statement: str) -> int:
    row = connection.execute(load("access", statement)).fetchone()
    if row is None:
        raise RuntimeError("control.revocation is empty: run `triggers migrate`")
    return int(row[0])


def tell_caches(settings: RedisSettings, version: int) -> bool:
    """Change the epoch that cached keys are bound to, after the commit. False without Redis: each API process then notices within 5 s."""
    try:
        client = redis.Redis.from_url(
            settings.url.get_secret_value(), socket_timeout=_TELL_TIMEOUT_S, socket_connect_timeout=_TELL_TIMEOUT_S
        )
        with client:
            client.set(epoch_key(), new_epoch(version))
    except (redis.RedisError, ValueError):  # ValueError: a URL that cannot be read; the change itself is committed by now
        return False
    return True
