"""The servers tests run on: the embedded stack by default, testcontainers where asked for.

Both give the same environment. Faults (kill, stop) are only placed on the embedded stack, whose processes are ours.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from triggers.devstack.stack import Stack


@dataclass(frozen=True)
class Servers:
    """`environment` makes a process use them; `stack` is there when they are embedded."""

    environment: Mapping[str, str]
    stack: Stack | None


@contextmanager
def start_servers(folder: Path) -> Iterator[Servers]:
    if os.environ.get("TRIGGERS_TEST_BACKEND") == "containers":
        with _containers() as environment:
            yield Servers(environment, None)
        return
    stack = Stack(folder, progress=lambda _: None)
    stack.start()
    try:
        yield Servers(stack.settings_env(), stack)
    finally:
        stack.destroy()


@contextmanager
def _containers() -> Iterator[Mapping[str, str]]:
    """Needs a Docker engine. The images are those of docker-compose.yml."""
    from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - imports a Docker client
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415
    from testcontainers.redis import RedisContainer  # noqa: PLC0415

    with ExitStack() as started:
        kafka = started.enter_context(KafkaContainer("apache/kafka:4.2.0").with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"))
        postgres = started.enter_context(PostgresContainer("postgres:18", driver=None))
        redis = started.enter_context(RedisContainer("redis:8"))
        yield {
            "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": kafka.get_bootstrap_server(),
            "TRIGGERS_POSTGRES__DSN": postgres.get_connection_url(),
            "TRIGGERS_REDIS__URL": f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
            "TRIGGERS_MASTER_KEYS": f"test:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS": "true",
        }
