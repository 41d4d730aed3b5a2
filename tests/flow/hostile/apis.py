"""More API processes beside the system's own."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from runtime.settings import Settings
from triggers.devstack.ports import free_ports
from triggers.system import System, argv, settings_of, until


@dataclass(frozen=True)
class Api:
    """One more API process of the system, with limits that a test reaches soon."""

    name: str
    settings: Settings

    @property
    def url(self) -> str:
        return f"http://{self.settings.api.host}:{self.settings.api.port}"


class OwnApi:
    """An API process of the test's own, which it may end."""

    def __init__(self, system: System, folder: Path, extra: dict[str, str]) -> None:
        self._environment = {**system.environment, **extra, "TRIGGERS_API__PORT": str(free_ports(1)[0])}
        self._log = folder / "api.log"

    def __enter__(self) -> tuple[subprocess.Popen[bytes], Settings]:
        settings = settings_of(self._environment)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv("serve"), env=self._environment, stdout=log, stderr=log)
        until(lambda: answers(f"http://127.0.0.1:{settings.api.port}/health/ready"), 30, "the API being ready", 0.2)
        return self._process, settings

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def listens(settings: Settings) -> bool:
    try:
        socket.create_connection((settings.api.host, settings.api.port), timeout=2).close()
    except OSError:
        return False
    return True
