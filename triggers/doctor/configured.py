"""Settings that are dangerous, or do not go together. Pure: needs no server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from access.secrets import Keyring, KeyringError
from runtime.settings import Settings
from triggers.doctor.findings import Said, bad, ok, warn

_ENVIRONMENTS: Final = ("development", "production")
_PRODUCTION: Final = "production"
#: Names that the local stack and the tests give their master keys.
_DEVELOPMENT_KEYS: Final = frozenset({"local", "test", "dev", "development", "demo", "example"})
#: 32 random bytes have 30 different ones on average; fewer than this many has about one in 10^17.
_DIFFERENT_BYTES_MIN: Final = 16
#: A group session outlives this many missed heartbeats (Kafka's advice for heartbeat.interval.ms).
_HEARTBEATS: Final = 3
_BROKERS: Final = 3
_REPLICAS: Final = 2
#: Where the cloud's metadata and this machine are: no webhook has business there.
_NEVER: Final = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")))
_VERIFIED: Final = frozenset({"require", "verify-ca", "verify-full"})


def configured(settings: Settings) -> Iterator[Said]:
    production = settings.environment == _PRODUCTION
    if settings.environment not in _ENVIRONMENTS:
        yield bad(
            f"TRIGGERS_ENVIRONMENT is {settings.environment!r}, which is treated as development",
            f"set it to one of {', '.join(_ENVIRONMENTS)}",
        )
    yield from _master_keys(settings, production=production)
    yield from _kafka(settings, production=production)
    yield from _egress(settings, production=production)
    yield from _api(settings, production=production)
    if production:
        yield from _links(settings)
    yield ok(f"environment {settings.environment}")


def _master_keys(settings: Settings, *, production: bool) -> Iterator[Said]:
    text = settings.master_keys.get_secret_value()
    try:
        keyring = Keyring.from_setting(text)
    except KeyringError as error:
        yield bad(str(error), "make one: head -c 32 /dev/urandom | base64")
        return
    weak = keyring.weak(_DIFFERENT_BYTES_MIN)
    if weak:
        yield bad(f"master key {', '.join(weak)} is not random", "put a new one in front: head -c 32 /dev/urandom | base64, then rewrap")
    if production and keyring.newest in _DEVELOPMENT_KEYS:
        yield bad(
            f"the newest master key is called {keyring.newest!r}, as in development: whoever has that file opens every secret",
            "put a new one in front, `triggers keyring rewrap`, drop the old one (docs/operating/master-keys.md)",
        )


def _kafka(settings: Settings, *, production: bool) -> Iterator[Said]:
    kafka = settings.kafka
    copies, in_sync = kafka.replication_factor, kafka.min_insync_replicas
    if in_sync > copies:
        yield bad(
            f"min.insync.replicas {in_sync} is above replication {copies}: nothing could be written", "lower it, or raise replication"
        )
    elif copies > 1 and in_sync == copies:
        yield warn(f"min.insync.replicas is replication ({copies}): the loss of one broker stops every write", "lower it by one")
    if production and (copies < _BROKERS or in_sync < _REPLICAS):
        yield bad(
            f"replication {copies} with min.insync.replicas {in_sync}: a 201 does not survive the loss of a broker",
            "run three brokers with TRIGGERS_KAFKA__REPLICATION_FACTOR=3 and TRIGGERS_KAFKA__MIN_INSYNC_REPLICAS=2",
        )
    if kafka.session_timeout_s < _HEARTBEATS * kafka.heartbeat_interval_s:
        yield warn(
            f"a session of {kafka.session_timeout_s:g} s with heartbeats every {kafka.heartbeat_interval_s:g} s",
            "let a session last at least three heartbeats: else a short pause moves partitions",
        )


def _egress(settings: Settings, *, production: bool) -> Iterator[Said]:
    delivery = settings.delivery
    if delivery.allow_insecure_endpoints and production:
        yield bad(
            "webhooks may go to http, local names and every address and port: anybody who has an endpoint can reach this network",
            "set TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS=false",
        )
    for network in delivery.egress_allowed_networks:
        if network.prefixlen == 0 or any(network.version == one.version and network.overlaps(one) for one in _NEVER):
            yield bad(
                f"webhooks may go to {network}, where this machine and the cloud's metadata are",
                "name only the networks of receivers in TRIGGERS_DELIVERY__EGRESS_ALLOWED_NETWORKS",
            )
        else:
            yield warn(f"webhooks may go to the private network {network}", "leave it if receivers live there; nothing else should")


def _api(settings: Settings, *, production: bool) -> Iterator[Said]:
    api = settings.api
    if any(network.prefixlen == 0 for network in api.trusted_proxies):
        yield bad("every caller's X-Forwarded-For is believed", "name only your proxies in TRIGGERS_API__TRUSTED_PROXIES")
    if production and "*" in api.cors_origins:
        yield warn("pages of every origin may call the API from a browser", "name the origins in TRIGGERS_API__CORS_ORIGINS")
    if production and settings.docs_enabled:
        yield warn("/docs is served to everybody", "unset TRIGGERS_API__DOCS_ENABLED")
    if settings.access.failed_keys_per_minute_max == 0:
        yield warn(
            "guesses at keys are not limited", "set TRIGGERS_ACCESS__FAILED_KEYS_PER_MINUTE_MAX, unless a proxy in front limits them"
        )


def _links(settings: Settings) -> Iterator[Said]:
    """How other machines are reached: with a password, and not in clear."""
    try:
        dsn: dict[str, Any] = conninfo_to_dict(settings.postgres.dsn.get_secret_value())
    except ProgrammingError:
        yield bad("TRIGGERS_POSTGRES__DSN cannot be read", "write postgresql://user@host:port/database")
        return
    host = str(dsn.get("host") or "")
    if _is_elsewhere(host) and dsn.get("sslmode") not in _VERIFIED:
        yield warn(f"PostgreSQL at {host} may be spoken to in clear", "add sslmode=verify-full to TRIGGERS_POSTGRES__DSN")
    url = urlsplit(settings.redis.url.get_secret_value())
    if url.scheme == "redis" and _is_elsewhere(url.hostname or ""):
        yield warn(f"Redis at {url.hostname} is spoken to in clear", "use rediss:// in TRIGGERS_REDIS__URL, or a private network")
    if url.scheme in ("redis", "rediss") and not url.password:
        yield warn("Redis asks for no password: whoever reaches it can let revoked keys in", "set requirepass, and the password in the URL")


def _is_elsewhere(host: str) -> bool:
    if not host or host.startswith("/") or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
