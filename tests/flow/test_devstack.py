"""The local stack itself, with its real servers: what survives, what is recognised, what is not left running. About 30 seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.settings import Settings
from triggers.devstack.ports import Ports
from triggers.devstack.process import Identity
from triggers.devstack.server import ServerError
from triggers.devstack.stack import Stack, StateFolderBusy

LIMIT_S = 30.0
KAFKA_RSS_BYTES_MAX = 400 * 1024 * 1024
OWNER = textwrap.dedent(
    """
    import json, signal, sys
    from pathlib import Path
    from triggers.devstack.stack import Stack

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background, as a CI may
    with Stack(Path(sys.argv[1]), progress=lambda line: None) as stack:
        print(json.dumps([server.pid for server in stack.servers]), flush=True)
        sys.stdin.read()
    """
)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.02)


def write(stack: Stack, value: str) -> None:
    """A record in Kafka and a row in PostgreSQL."""
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap_servers})
    if "kept" not in admin.list_topics(timeout=LIMIT_S).topics:
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(LIMIT_S)
    producer = Producer({"bootstrap.servers": stack.kafka.bootstrap_servers, "acks": "all"})
    producer.produce("kept", value.encode())
    assert producer.flush(LIMIT_S) == 0
    with psycopg.connect(stack.postgres.dsn) as link:
        link.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        link.execute("INSERT INTO kept VALUES (%s)", (value,))


def records(stack: Stack) -> list[str]:
    consumer = Consumer({"bootstrap.servers": stack.kafka.bootstrap_servers, "group.id": "reader", "enable.auto.commit": False})
    try:
        partition = TopicPartition("kept", 0, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=LIMIT_S)
        consumer.assign([partition])
        found: list[str] = []
        deadline = time.monotonic() + LIMIT_S
        while len(found) < end and time.monotonic() < deadline:
            for message in consumer.consume(end, 0.5):
                value = message.value()
                assert message.error() is None
                assert value is not None
                found.append(value.decode())
        return found
    finally:
        consumer.close()


def rows(stack: Stack) -> list[str]:
    with psycopg.connect(stack.postgres.dsn) as link:
        return [value for (value,) in link.execute("SELECT value FROM kept").fetchall()]


def descendants(pid: int) -> list[Identity]:
    """All processes below one, as /proc shows them."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    below, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        below += children
        todo += children
    return [identity for one in below if (identity := Identity.of(one)) is not None]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("first") / "state")
    made.start()
    write(made, "before")
    yield made
    made.destroy()


def test_the_settings_of_a_stack_are_settings_of_the_project(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.settings_env().items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.kafka.bootstrap_servers == stack.kafka.bootstrap_servers
    assert settings.postgres.dsn.get_secret_value() == stack.postgres.dsn
    assert settings.redis.url.get_secret_value() == stack.redis.url
    assert settings.processor.data_dir.is_dir()
    assert settings.delivery.allow_insecure_endpoints


def test_the_broker_is_small(stack: Stack) -> None:
    found = stack.kafka.rss_bytes()
    assert found is None or found <= KAFKA_RSS_BYTES_MAX


def test_each_server_killed_comes_back_with_its_data(stack: Stack) -> None:
    for server in stack.servers:
        killed = server.pid
        server.kill()
        assert not server.alive()
        server.bring_up()
        assert server.pid != killed
    assert records(stack) == ["before"]
    assert rows(stack) == ["before"]


def test_a_paused_server_answers_nothing_and_then_goes_on(stack: Stack) -> None:
    for server in stack.servers:
        server.pause()
        assert server.probe() is not None, f"{server.name} answers while paused"
        server.resume()
        server.wait_ready()


def test_the_database_asks_for_its_password(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{stack.postgres.port}/triggers")


def test_a_second_stack_on_the_same_folder_is_told_who_has_it(stack: Stack) -> None:
    with pytest.raises(StateFolderBusy, match=f"process {os.getpid()}"):
        Stack(stack.state_dir).start()
    assert all(server.alive() for server in stack.servers)


def test_a_given_port_that_is_taken_is_named(stack: Stack, tmp_path: Path) -> None:
    ports = Ports(kafka=stack.kafka.port, kafka_controller=1025, postgres=1026, redis=1027)
    with pytest.raises(ServerError, match=f"port {stack.kafka.port} is taken"):
        Stack(tmp_path / "state", ports=ports).start()


def test_a_stack_outlives_every_death_of_its_owner_and_leaves_nothing_running(stack: Stack, tmp_path: Path) -> None:
    """Beside the other stack: Ctrl-C, SIGTERM and SIGKILL of the owner in turn, then a start on what the last one left behind."""
    state = tmp_path / "state"
    ports: dict[str, int] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen([sys.executable, "-c", OWNER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            pids = json.loads(owner.stdout.readline())
            below = descendants(owner.pid)
            assert {identity.pid for identity in below} >= set(pids)
            owner.send_signal(number)
            wait_until(lambda below=below: not any(identity.alive() for identity in below), f"nothing runs after {number.name}")  # type: ignore[misc]  # a bound default is not inferred
        chosen = json.loads((state / "ports.json").read_text())
        assert ports in ({}, chosen), "the ports are remembered"
        ports = chosen
    assert not set(ports.values()) & {stack.kafka.port, stack.kafka.controller_port, stack.postgres.port, stack.redis.port}

    with Stack(state) as second:
        write(second, "second")
        data = second.postgres.data
        for server in second.servers:
            server.kill()
    # A crash of the machine: the pids in the files have gone to somebody else since.
    with subprocess.Popen(["/bin/sleep", "60"], user=second.postgres.data.stat().st_uid) as stranger:
        try:
            lock = data / "postmaster.pid"
            lines = lock.read_text().splitlines()
            lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            for server in second.servers:
                (server.home / "server.pid").write_text(json.dumps({"pid": stranger.pid, "started": "at another time"}))
            (state / "lock").write_text(f"{stranger.pid}\n")
            third = Stack(state)
            third.start()
            try:
                assert records(third) == ["second"]
                assert rows(third) == ["second"]
                assert stranger.poll() is None
                assert all(server.alive() for server in stack.servers)
            finally:
                third.destroy()
        finally:
            stranger.kill()
