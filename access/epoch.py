"""Telling every process that what it has cached of the control plane may be old: the epoch in Redis is changed."""

from __future__ import annotations

import os
from typing import Final

import redis

from access.auth import epoch_key, epoch_value
from runtime.settings import RedisSettings

_REDIS_TIMEOUT_S: Final = 2.0


def tell_caches(settings: RedisSettings, version: int) -> bool:
    """Change the epoch that caches are bound to; returns whether Redis took it. Without it each process notices within seconds."""
    try:
        client = redis.Redis.from_url(
            settings.url.get_secret_value(), socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
        with client:
            client.set(epoch_key(), epoch_value(version, os.urandom(8)))
    except (redis.RedisError, ValueError):  # ValueError: a URL that cannot be read; the change itself is committed by now
        return False
    return True
