"""Postgres, what is folded into it, and Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import redis
from psycopg import Connection
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from projections.folds import FOLDS
from runtime import migrations
from runtime.postgres import FOLDS_SCHEMA, connect
from runtime.settings import Settings
from runtime.sql import load
from runtime.topics import admin, generation
from triggers.doctor.findings import Said, bad, ok, warn
from triggers.doctor.kafka import reach

#: Connections of each processor and delivery worker (`triggers.processes`), and of commands and migrations meanwhile.
_WORKER_CONNECTIONS: Final = 2
_COMMAND_CONNECTIONS: Final = 5
_FULL_SHARE: Final = 0.9
_UNLIMITED: Final = 0


def postgres(settings: Settings) -> Iterator[Said]:
    with connect(settings.postgres, application="doctor", restoring=True) as connection:
        connection.autocommit = True
        version, recovering, *durability = _one(connection, "doctor_server")
        if recovering:
            yield bad("it is a standby, nothing can be written", "point TRIGGERS_POSTGRES__DSN at the primary")
        else:
            yield ok(f"PostgreSQL {version}")
        for name, value in zip(("fsync", "full_page_writes", "synchronous_commit"), durability, strict=True):
            if value == "off":  # the folds may be folded again; the control plane is nowhere else
                yield bad(f"{name} is off: keys and endpoints that were answered for can be gone after a crash", f"set {name}=on")
        yield from _room(connection, settings)
    current, newest = migrations.current(settings.postgres), migrations.newest()
    if current == newest:
        yield ok(f"the tables are at {newest}, the newest schema")
    elif current is None or current < (newest or ""):
        yield bad(f"the tables are at {current}, this version needs {newest}", "run `triggers migrate`")
    else:
        yield bad(f"the tables are at {current}, this version knows up to {newest}", "run the version that migrated them, or a newer one")


def _room(connection: Connection[Any], settings: Settings) -> Iterator[Said]:
    most, reserved, used = _one(connection, "doctor_connections")
    api = settings.postgres.pool_size_max + settings.access.control_connections_max
    workers = 2 * _WORKER_CONNECTIONS  # project and delivery; dedup has none
    room = most - reserved - workers - _COMMAND_CONNECTIONS
    what = f"max_connections={most}: room for {max(0, room // api)} API processes of up to {api} connections beside one worker of each kind"
    if room < api:
        yield bad(what, "raise max_connections, or lower TRIGGERS_POSTGRES__POOL_SIZE_MAX and TRIGGERS_ACCESS__CONTROL_CONNECTIONS_MAX")
    else:
        yield ok(what)
    if used >= _FULL_SHARE * (most - reserved):
        yield warn(f"{used} of {most - reserved} connections are in use", "see who has them: SELECT * FROM pg_stat_activity")


def folds(settings: Settings) -> Iterator[Said]:
    """Where Postgres stands in each topic: that decides where the `project` processor goes on, not its group's offsets."""
    places = [(fold.topic, number) for fold in FOLDS for number in range(settings.kafka.partitions)]
    with connect(settings.postgres, search_path=FOLDS_SCHEMA, application="doctor", restoring=True) as connection:
        standing, folded = {}, set()
        for topic, number in places:
            row = connection.execute(load("projections", "standing"), (topic, number)).fetchone()
            standing[topic, number] = 0 if row is None else int(row[0])
            if row is not None:
                folded.add(int(row[1]))
    behind: dict[str, int] = {}
    troubled = False
    client = admin(settings.kafka)
    here = generation(client, settings.operating.check_timeout_s)
    if folded - {here}:
        yield bad(
            f"the tables were folded from topics of generation {max(folded)}, the topics are of generation {here}",
            "the database is of another system, or from a dump made before partitions were grown: see TRIGGERS_POSTGRES__DSN",
        )
        return
    begins, ends = reach(client, places, settings.operating.check_timeout_s)
    for (topic, number), end in ends.items():
        at, begin = standing[topic, number], begins[topic, number]
        if at > end:
            troubled = True
            yield bad(
                f"{topic}[{number}] is folded up to {at}, the log ends at {end}",
                "is this its broker, or was it restored from an older copy? Stop `triggers process project` before anything else",
            )
        elif at < begin:
            troubled = True
            yield bad(f"{topic}[{number}] is folded up to {at}, the log begins at {begin}", "records are gone that were never folded")
        behind[topic] = behind.get(topic, 0) + max(0, end - at)
    for topic, count in behind.items():
        if count > settings.operating.lag_records_max:
            troubled = True
            yield warn(f"{count:,} records of {topic} are not folded yet", "see the log of `triggers process project`")
    if not troubled:
        yield ok(f"{sum(behind.values()):,} records wait to be folded")


def connect_redis(settings: Settings) -> redis.Redis:
    """One connection, tried once. Not the product's client: that one leaves Redis alone after a failure."""
    timeout_s = settings.operating.check_timeout_s
    return redis.Redis.from_url(
        settings.redis.url.get_secret_value(),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def redis_server(settings: Settings) -> Iterator[Said]:
    client = connect_redis(settings)
    try:
        found: dict[str, Any] = client.info("everything")
        yield ok(f"Redis {found['redis_version']}")
        yield from _memory(found)
        if found.get("role") != "master":
            yield bad(f"it is a {found.get('role')}, nothing can be written", "point TRIGGERS_REDIS__URL at the primary")
        yield from _persistence(client, found)
    finally:
        client.close()


def _memory(found: dict[str, Any]) -> Iterator[Said]:
    policy, most, used = found.get("maxmemory_policy"), int(found.get("maxmemory") or _UNLIMITED), int(found.get("used_memory") or 0)
    if policy != "noeviction":
        yield bad(
            f"maxmemory-policy is {policy}: a reservation thrown out lets a second event through that dedup must then drop",
            "set maxmemory-policy noeviction",
        )
    else:
        yield ok("maxmemory-policy is noeviction")
    if most == _UNLIMITED:
        yield warn(
            "its memory has no limit", "set maxmemory (docker-compose.yml: 256mb): a full Redis refuses writes, which ingest survives"
        )
    elif used >= _FULL_SHARE * most:
        yield warn(f"{used:,} of {most:,} bytes of memory are in use", "raise maxmemory: when it is full, ingest goes on without Redis")
    if int(found.get("evicted_keys") or 0) > 0:
        yield warn(f"{found['evicted_keys']} keys were evicted since it started", "set maxmemory-policy noeviction and a larger maxmemory")


def _persistence(client: redis.Redis, found: dict[str, Any]) -> Iterator[Said]:
    """It is a cache: a restart begins empty, which every reader notices by the missing epoch of keys."""
    try:
        saves = bool(client.config_get("save").get("save"))
    except ResponseError:  # CONFIG is closed in managed services
        saves = int(found.get("rdb_saves") or 0) > 0
    kept = [name for name, on in (("appendonly", bool(found.get("aof_enabled"))), ("save", saves)) if on]
    if kept:
        yield warn(
            f"it keeps its data over a restart ({', '.join(kept)}): it could come back with keys that were revoked meanwhile",
            'set save "" and appendonly no: it is a cache here, and begins empty',
        )


def _one(connection: Connection[Any], name: str) -> tuple[Any, ...]:
    row = connection.execute(load("triggers", name)).fetchone()
    if row is None:
        raise RuntimeError("PostgreSQL gave no answer")
    return tuple(row)
