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

import yaml

from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack

_COMPOSE = Path(__file__).parents[1] / "docker-compose.yml"


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


def images() -> Mapping[str, str]:
    """Service → image, as docker-compose.yml has them."""
    services = yaml.safe_load(_COMPOSE.read_text())["services"]
    return {name: services[name]["image"] for name in ("kafka", "postgres", "redis")}


def kafka_environment(host: str, port: int) -> dict[str, str]:
    """What the broker's image is given: docker-compose.yml's, but reached at `host:port`, from outside and by itself."""
    found: Mapping[str, object] = yaml.safe_load(_COMPOSE.read_text())["services"]["kafka"]["environment"]
    return {
        **{name: str(value) for name, value in found.items() if name != "KAFKA_LOG_DIRS"},
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    }


@contextmanager
def _containers() -> Iterator[Mapping[str, str]]:
    """Needs a Docker engine. Not testcontainers' own Kafka: that starts an image of Confluent's, with ZooKeeper in it."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - imports a Docker client
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    with ExitStack() as started:
        image = images()
        broker = DockerContainer(image["kafka"], _wait_strategy=LogMessageWaitStrategy("Kafka Server started"))
        host, port = broker.get_container_host_ip(), free_ports(1)[0]
        broker.with_bind_ports(port, port)  # the same inside: the broker calls itself by the address it tells clients
        for name, value in kafka_environment(host, port).items():
            broker.with_env(name, value)
        started.enter_context(broker)
        postgres = started.enter_context(PostgresContainer(image["postgres"], driver=None))
        redis = started.enter_context(RedisContainer(image["redis"]))
        yield {
            "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": f"{host}:{port}",
            "TRIGGERS_POSTGRES__DSN": postgres.get_connection_url(),
            "TRIGGERS_REDIS__URL": f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
            "TRIGGERS_MASTER_KEYS": f"test:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS": "true",
        }
