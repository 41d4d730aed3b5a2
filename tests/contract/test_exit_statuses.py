"""How a process ends that cannot begin: the status and the log line an operator's supervisor goes by."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from runtime import migrations, topics
from runtime.lifecycle import EXIT_UNAVAILABLE
from tests.backends import start_servers
from tests.conftest import TEST_ENVIRONMENT
from triggers.devstack.ports import free_ports
from triggers.system import PROCESSES, argv, settings_of


@pytest.mark.parametrize("name", ["dedup", "project", "delivery"])
def test_a_server_that_never_comes_ends_the_process_with_its_own_status_and_a_json_line_that_names_it(name: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "TRIGGERS_STARTUP_TIMEOUT_S": "0.1",
        "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_ports(1)[0]}",
        "TRIGGERS_MASTER_KEYS": f"test:{base64.b64encode(bytes(32)).decode()}",
    }
    ran = subprocess.run(argv(*PROCESSES[name]), env=environment, capture_output=True, check=False, timeout=60)
    assert ran.returncode == EXIT_UNAVAILABLE
    assert ran.stderr == b""
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (lines[-1]["event"], lines[-1]["status"], lines[-1]["process"]) == ("process.died", EXIT_UNAVAILABLE, name)
    assert lines[-1]["reason"].startswith("Kafka did not answer within 0.1 s: ")


@pytest.mark.parametrize("name", ["dedup", "project", "delivery"])
def test_told_to_stop_while_it_waits_for_a_server_a_process_ends_at_once_with_status_0(name: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "TRIGGERS_STARTUP_TIMEOUT_S": "300",
        "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_ports(1)[0]}",
        "TRIGGERS_MASTER_KEYS": f"test:{base64.b64encode(bytes(32)).decode()}",
    }
    with subprocess.Popen(argv(*PROCESSES[name]), env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            until_event(process.stdout, "waiting")
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert json.loads(process.stdout.read().splitlines()[-1])["event"] == "process.stopped"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[dict[str, str]]:
    """Servers of this file's own, with tables and topics: its workers take whatever is in them."""
    with start_servers(tmp_path_factory.mktemp("stack")) as servers:
        made = {**servers.environment, **TEST_ENVIRONMENT}
        settings = settings_of(made)
        migrations.migrate(settings.postgres)
        topics.ensure(settings.kafka, settings.delivery.delays_s)
        yield made


@pytest.mark.parametrize("name", ["dedup", "project", "delivery"])
def test_told_to_stop_while_it_starts_a_process_ends(name: str, prepared: dict[str, str], tmp_path: Path) -> None:
    """A start that is half way went on behind the stop, and left what it had started."""
    ours = {**prepared, "TRIGGERS_TELEMETRY__METRICS_PORT": "0", "TRIGGERS_PROCESSOR__DATA_DIR": str(tmp_path)}
    for pause_s in (0.0, 0.8, 2.0):
        with subprocess.Popen(argv(*PROCESSES[name]), env=ours, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                until_event(process.stdout, "metrics.serving")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(pause_s)  # at different points of its start
                process.terminate()
                assert process.wait(30) in (0, -signal.SIGTERM), "the second before it listens to signals"
            finally:
                process.kill()


def until_event(lines: IO[bytes], event: str) -> None:
    for line in lines:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"it ended before {event}")
