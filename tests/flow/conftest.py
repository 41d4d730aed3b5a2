"""A whole running system for the flow tests: every process, on the session's servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from triggers.devstack.ports import free_ports
from triggers.receiver import Receiver
from triggers.system import System


@pytest.fixture(scope="session")
def system(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """API, processors and delivery. What they log lies in its folder, which pytest keeps."""
    logs: Path = tmp_path_factory.mktemp("logs")
    made = {**environment, "PATH": "/usr/bin:/bin", "TRIGGERS_API__PORT": str(free_ports(1)[0])}
    running = System(made, logs, announce=lambda line: print(line, flush=True))
    running.prepare()
    running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one
