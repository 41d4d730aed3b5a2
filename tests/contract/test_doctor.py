"""`triggers doctor` and `triggers topics` on real servers with something wrong: what it is, what to do, and nothing changed unasked."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from confluent_kafka import Producer, TopicPartition
from confluent_kafka._model import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from typer.testing import CliRunner, Result

from runtime.settings import Settings
from runtime.topics import admin
from schemas.topics import DELIVERY_GROUP, retry_topic
from tests.contract.databases import empty_database
from triggers.cli import app
from triggers.devstack.ports import free_ports

Run = Callable[..., Result]
EXTRA_DELAY_S = 0.321
EXTRA = retry_topic(EXTRA_DELAY_S)


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*arguments: str, **more: str) -> Result:
        limits = {"TRIGGERS_OPERATING__CHECK_TIMEOUT_S": "60"}
        return CliRunner().invoke(app, arguments, env={**environment, **limits, **more})

    return run


@pytest.fixture
def extra(settings: Settings) -> Iterator[dict[str, str]]:
    """The environment of a system with one more delay, whose topic these tests may spoil."""
    yield {"TRIGGERS_DELIVERY__DELAYS_S": json.dumps([*settings.delivery.delays_s, EXTRA_DELAY_S])}
    client = admin(settings.kafka)
    for deleted in client.delete_topics([EXTRA]).values():
        deleted.result(20)


def findings(result: Result) -> list[dict[str, Any]]:
    assert result.stderr == "", result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if told["severity"] == "fail" else 0)
    return list(told["findings"])


def of(result: Result, check: str, severity: str) -> list[str]:
    found = [one for one in findings(result) if (one["check"], one["severity"]) == (check, severity)]
    assert severity == "ok" or all(one["do"] for one in found)
    return [one["what"] for one in found]


def test_sound_servers_are_told_as_sound(run: Run) -> None:
    checks = [
        f"--only={name}" for name in ("settings", "brokers", "postgres", "folds", "redis", "clock.postgres", "clock.redis", "machine")
    ]
    result = run("doctor", "--json", *checks)
    assert [one for one in findings(result) if one["severity"] == "fail"] == []
    people = run("doctor", *checks).stdout.splitlines()
    assert any(line.startswith("ok    postgres") and "newest schema" in line for line in people)
    assert people[-1].endswith("0 fail")


def test_a_group_without_members_is_told_with_the_command_that_starts_one(run: Run) -> None:
    result = run("doctor", "--json", "--only=groups")
    assert any("group dedup has no member" in what for what in of(result, "groups", "fail"))
    people = run("doctor", "--only=groups")
    assert people.exit_code == 1
    assert "→ start `triggers process dedup`" in people.stdout


def test_a_server_that_is_away_or_hangs_does_not_hide_what_the_others_say(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        result = run(
            "doctor", "--json",
            TRIGGERS_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{free_ports(1)[0]}",
            TRIGGERS_REDIS__URL=f"redis://:hunter2@127.0.0.1:{silent.getsockname()[1]}/0",
            TRIGGERS_OPERATING__CHECK_TIMEOUT_S="5",
        )  # fmt: skip
        took_s = time.monotonic() - began_s
    failed = {one["check"] for one in findings(result) if one["severity"] == "fail"}
    assert failed >= {"brokers", "topics", "groups", "folds", "redis", "clock.redis"}
    assert "postgres" not in failed
    assert took_s < 15
    assert "hunter2" not in result.stdout


def test_redis_that_would_forget_reservations_or_bring_old_keys_back_is_told(run: Run, settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis.url.get_secret_value()) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("save", "3600 1")
        try:
            result = run("doctor", "--json", "--only=redis")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("save", "")
    assert any("maxmemory-policy is allkeys-lru" in what for what in of(result, "redis", "fail"))
    assert any("keeps its data over a restart (save)" in what for what in of(result, "redis", "warn"))


def test_tables_that_are_not_migrated_are_told(run: Run, settings: Settings) -> None:
    with empty_database(settings.postgres) as empty:
        result = run("doctor", "--json", "--only=postgres", TRIGGERS_POSTGRES__DSN=empty.dsn.get_secret_value())
    assert any(what.startswith("the tables are at None") for what in of(result, "postgres", "fail"))


def test_pools_that_postgres_has_no_room_for_are_told(run: Run) -> None:
    result = run("doctor", "--json", "--only=postgres", TRIGGERS_POSTGRES__POOL_SIZE_MAX="1000")
    assert any("room for 0 API processes" in what for what in of(result, "postgres", "fail"))


def test_an_unknown_check_is_refused_with_those_there_are(run: Run) -> None:
    result = run("doctor", "--only=brokerz")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "clock.postgres" in result.stderr


def test_topics_are_planned_before_they_are_changed_and_what_is_dangerous_only_when_asked_for(
    run: Run, extra: dict[str, str], settings: Settings
) -> None:
    def plan() -> dict[str, str]:
        rows = json.loads(run("topics", "plan", "--json", **extra).stdout)
        return {row["setting"]: row["change"] for row in rows if row["topic"] == EXTRA}

    assert plan() == {"topic": "create"}
    assert plan() == {"topic": "create"}, "a plan changed something"
    assert run("topics", "apply", **extra).exit_code == 0
    assert plan() == {}

    forever, compacted = {"retention.ms": "-1"}, {"cleanup.policy": "compact"}
    alter(settings, {**forever, **compacted, "retention.bytes": "1000000"})
    assert plan() == {"cleanup.policy": "dangerous", "retention.ms": "dangerous", "retention.bytes": "set"}
    doctor = run("doctor", "--json", "--only=topics", **extra)
    assert any(f"{EXTRA} has cleanup.policy=compact" in what for what in of(doctor, "topics", "fail"))
    assert any(f"{EXTRA} has retention.bytes=1000000" in what for what in of(doctor, "topics", "warn"))

    alter(settings, {"cleanup.policy": "delete"})
    applied = run("topics", "apply", **extra)
    assert applied.exit_code == 1
    assert "retention.ms is -1, declared is 1209600000: with --dangerous: records that are older are deleted" in applied.stderr
    assert plan() == {"retention.ms": "dangerous"}
    assert run("topics", "apply", "--dangerous", **extra).exit_code == 0
    assert plan() == {}


def alter(settings: Settings, values: dict[str, str]) -> None:
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in values.items()]
    client = admin(settings.kafka)
    changed = client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, EXTRA, incremental_configs=entries)])
    for one in changed.values():
        one.result(20)


def test_partitions_are_never_changed(run: Run, settings: Settings, extra: dict[str, str]) -> None:
    more = {"TRIGGERS_KAFKA__PARTITIONS": str(settings.kafka.partitions + 1)}
    rows = json.loads(run("topics", "plan", "--json", **more).stdout)
    assert {(row["setting"], row["change"]) for row in rows} == {("partitions", "refused")}
    applied = run("topics", "apply", "--dangerous", **more, **extra)
    assert applied.exit_code == 1
    assert "growing means a new generation (`triggers topics grow`)" in applied.stderr
    assert run("topics", "apply", **extra).exit_code == 0, "the topic is there to be deleted, and only now"
    assert any("has partitions=" in what for what in of(run("doctor", "--json", "--only=topics", **more), "topics", "fail"))


def test_retries_on_a_delay_that_was_taken_away_and_a_group_beyond_its_log_are_told(
    run: Run, extra: dict[str, str], settings: Settings
) -> None:
    assert run("topics", **extra).exit_code == 0
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(EXTRA, b"x", b"k", 0)
    assert producer.flush(20) == 0
    result = run("doctor", "--json", "--only=groups")
    assert f"1 retries wait on {EXTRA}, which nobody reads" in of(result, "groups", "fail")
    client: AdminClient = admin(settings.kafka)
    moved = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(DELIVERY_GROUP, [TopicPartition(EXTRA, 1, 99)])])
    moved[DELIVERY_GROUP].result(20)
    told = of(run("doctor", "--json", "--only=groups", **extra), "groups", "fail")
    assert any(f"stands outside of {EXTRA}[1] at 99, which holds 0 to 0" in what for what in told)
