"""Compose file, image and container backend as files: there need not be a Docker engine where this runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import backends
from triggers.system import PROCESSES

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_every_process_has_a_service_that_runs_it_and_comes_back() -> None:
    for name, arguments in PROCESSES.items():
        assert SERVICES[name]["command"] == ["triggers", *arguments]
        assert SERVICES[name]["restart"] == "always"
        assert "prepare" in SERVICES[name]["depends_on"]


def test_what_must_survive_a_new_container_lies_in_a_declared_volume() -> None:
    mounted = {name: service["volumes"] for name, service in SERVICES.items() if "volumes" in service}
    assert mounted.keys() >= {"kafka", "kafka-1", "kafka-2", "kafka-3", "postgres", "dedup"}
    used = {volume.partition(":")[0] for volumes in mounted.values() for volume in volumes}
    assert used == COMPOSE["volumes"].keys()
    for name in ("kafka", "kafka-1", "kafka-2", "kafka-3"):
        folder = SERVICES[name]["environment"]["KAFKA_LOG_DIRS"]
        assert [volume.partition(":")[2] for volume in mounted[name]] == [folder]


def test_the_three_brokers_know_each_other_and_never_acknowledge_alone() -> None:
    brokers = {name: SERVICES[name]["environment"] for name in ("kafka-1", "kafka-2", "kafka-3")}
    voters = ",".join(f"{made['KAFKA_NODE_ID']}@{name}:9093" for name, made in brokers.items())
    for name, made in brokers.items():
        assert made["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
        assert made["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{name}:9092"
        assert made["KAFKA_MIN_INSYNC_REPLICAS"] == 2
        assert made["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == made["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_no_secret_has_a_default_and_only_the_api_is_reached_from_the_machine_itself() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in ("POSTGRES_PASSWORD", "TRIGGERS_MASTER_KEYS"):
        assert f"${{{secret}:?" in text
        assert f"${{{secret}:-" not in text
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {"api": ["127.0.0.1:8000:8000"]}


def test_images_are_pinned_and_the_build_takes_no_state_of_this_machine() -> None:
    assert all(service["image"].partition(":")[2] not in ("", "latest") for service in SERVICES.values() if "image" in service)
    assert {".venv", ".triggers", ".git"} <= set((ROOT / ".dockerignore").read_text().split())
    copied = [line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert all((ROOT / path).exists() for path in copied)


def test_the_container_backend_starts_the_images_of_the_compose_file() -> None:
    assert backends.images() == {name: SERVICES[name]["image"] for name in ("kafka", "postgres", "redis")}
    made = backends.kafka_environment("docker.test", 5)
    assert made["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://docker.test:5"
    assert made["KAFKA_LISTENERS"] == "PLAINTEXT://:5,CONTROLLER://:9093"
    assert made["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert all(isinstance(value, str) for value in made.values())


def test_without_a_docker_engine_the_container_backend_says_so_and_nothing_of_it_is_deprecated() -> None:
    """In a process of its own: what the client leaves unclosed when it finds no engine is not ours."""
    program = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "from pathlib import Path\n"
        "import docker\n"
        "from tests.backends import start_servers\n"
        "try:\n"
        "    with start_servers(Path('unused')): print('started')\n"
        "except docker.errors.DockerException as error: print('no engine', error)\n"
    )
    environment = {"TRIGGERS_TEST_BACKEND": "containers", "DOCKER_HOST": "unix:///nowhere/docker.sock", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.startswith("no engine"), ran.stderr
