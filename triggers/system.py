"""The application's processes on a given set of servers, as one thing that starts, answers and stops. For `dev`, `smoke` and the tests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from runtime import migrations, topics
from runtime.lifecycle import wait_for
from runtime.settings import Settings
from triggers.devstack.supervisor import Supervisor

#: Process name → arguments of the command line. Started in this order, stopped in the reverse.
PROCESSES: Final[Mapping[str, tuple[str, ...]]] = {
    "dedup": ("process", "dedup"),
    "project": ("process", "project"),
    "delivery": ("deliver",),
    "api": ("serve",),
}
_READY_TIMEOUT_S: Final = 60.0
_PROBE_TIMEOUT_S: Final = 3.0


def settings_of(environment: Mapping[str, str]) -> Settings:
    """`Settings` as a process with this environment reads them, whatever our own environment says."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        return Settings()
    finally:
        os.environ.clear()
        os.environ.update(saved)


def argv(*arguments: str) -> list[str]:
    """This program, whatever folder it was started from."""
    return [sys.executable, "-m", "triggers", *arguments]


class System:
    """API, both processors and delivery, supervised. `environment` is the whole environment of each process."""

    def __init__(self, environment: Mapping[str, str], logs: Path, *, announce: Callable[[str], None] = print) -> None:
        self.environment = {"TRIGGERS_TELEMETRY__METRICS_PORT": "0", **environment}
        self.settings = settings_of(self.environment)
        self.supervisor = Supervisor(announce)
        self._logs = logs
        self.url = f"http://{self.settings.api.host}:{self.settings.api.port}"

    def prepare(self) -> None:
        """Tables and topics. Raises as `runtime.migrations.migrate` and `runtime.topics.ensure` do."""
        wait_for("PostgreSQL", lambda: migrations.migrate(self.settings.postgres), self.settings.startup_timeout_s)
        topics.ensure(self.settings.kafka, self.settings.delivery.delays_s)

    def start(self, *names: str) -> None:
        """Start the named processes, all by default; does not wait for them."""
        for name in names or PROCESSES:
            self.start_process(name, PROCESSES[name])

    def start_process(self, name: str, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None) -> None:
        """One process under a name of its own, with more environment: a second worker, say."""
        self.supervisor.start(name, argv(*arguments), env={**self.environment, **(extra or {})}, log_path=self._logs / f"{name}.log")

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Until the API says that every server it needs answers. Raises `runtime.lifecycle.Unavailable`."""

        def probe() -> None:
            answer = httpx.get(f"{self.url}/health/ready", timeout=_PROBE_TIMEOUT_S)
            if answer.status_code != httpx.codes.OK:
                raise RuntimeError(answer.text)

        wait_for("the API", probe, timeout_s)

    def stop(self) -> None:
        self.supervisor.stop()


def until(condition: Callable[[], bool], timeout_s: float, what: str, pause_s: float = 0.05) -> None:
    """Wait for a condition. Raises `TimeoutError` naming `what`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(pause_s)
