"""How a process ends that cannot begin: the status and the log line an operator's supervisor goes by."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from runtime.lifecycle import EXIT_UNAVAILABLE
from triggers.devstack.ports import free_ports
from triggers.system import PROCESSES, argv


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
