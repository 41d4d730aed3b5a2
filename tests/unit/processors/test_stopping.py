"""Told to stop in the middle of a start that does not come to its end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path


def test_told_to_stop_while_its_broker_leaves_it_waiting_a_processor_ends_at_once_with_status_0(tmp_path: Path) -> None:
    """Faust would wait for the start it began, and go on with it behind the stop."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
        command = [sys.executable, "-m", "tests.unit.processors.starting", address, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                broker.settimeout(60)
                with broker.accept()[0]:  # its start is under way
                    process.terminate()
                    assert process.wait(10) == 0
            finally:
                process.kill()
            assert process.stdout is not None
            assert json.loads(process.stdout.read().splitlines()[-1])["event"] == "process.stopped"
