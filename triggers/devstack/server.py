"""What the three servers have in common: start, readiness with a limit, stop, kill, pause, and recognising a leftover of a crashed run.

A subclass says how its folder is prepared, which command runs and how to ask whether it answers. Nothing here knows Kafka, PostgreSQL
or Redis.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from triggers.devstack.process import Child, end_process, read_identity, spawn, tail, write_identity

_POLL_S: Final = 0.05


class ServerError(RuntimeError):
    """A local server could not be brought to answer; the message names it, the reason and its log."""


class Cancelled(ServerError):
    """Starting was given up because somebody asked to stop."""


class Server(ABC):
    """One local server with its folder `home`. Not safe for use from several threads at once."""

    #: Name in messages.
    name: ClassVar[str]
    #: What asks it to end in order, and what it gets when our process dies without a word.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 15.0

    def __init__(self, home: Path, *, progress: Callable[[str], None], cancel: threading.Event | None = None) -> None:
        self.home = home
        self.log_path = home / "server.log"
        self.progress = progress
        #: Set by whoever wants a start in another thread to be given up.
        self.cancel = cancel or threading.Event()
        self._pid_path = home / "server.pid"
        self._child: Child | None = None

    @abstractmethod
    def prepare(self) -> Child:
        """Bring the folder into a state to start from, start the server, return it. May take long the first time."""

    @abstractmethod
    def probe(self) -> str | None:
        """`None` if the server answers as it should, else the reason why not. May block for a second at most."""

    @property
    def pid(self) -> int:
        """Raises `ServerError` if the server was not started."""
        return self._running().pid

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def rss_bytes(self) -> int | None:
        """Resident memory of the server's main process."""
        return self._running().rss_bytes()

    def start(self) -> None:
        """Start the server without waiting for it. A running one, also one left over from a crashed run, is not started twice.

        Raises `ServerError` if its folder cannot be prepared.
        """
        if self.alive():
            return
        self.home.mkdir(parents=True, exist_ok=True)
        self.end_leftover()
        self._child = self.prepare()
        write_identity(self._pid_path, self._child.identity)

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Returns when the server answers. Raises `ServerError` when it has ended or does not answer within `timeout_s`."""
        limit_s = self.start_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        child = self._running()
        reason: str | None = "it was not asked yet"
        while True:
            if self.cancel.is_set():
                raise Cancelled(f"{self.name}: start given up")
            status = child.poll()
            if status is not None:
                raise ServerError(
                    f"{self.name} ended with status {status} while starting. Its log is {self.log_path}\n{tail(self.log_path)}"
                )
            reason = self.probe()
            if reason is None:
                return
            if time.monotonic() > deadline:
                told = tail(self.log_path)
                raise ServerError(f"{self.name} did not answer within {limit_s:g} s: {reason}. Its log is {self.log_path}\n{told}")
            self.cancel.wait(_POLL_S)

    def bring_up(self) -> None:
        """Start it and wait until it answers. Raises `ServerError`."""
        self.start()
        self.wait_ready()

    def stop(self) -> None:
        """End it in order, or by SIGKILL after `stop_timeout_s`. Nothing happens if it does not run."""
        if self._child is not None:
            self._child.stop(self.stop_signal, self.stop_timeout_s)
            self.ended()
            self._child = None
        self._pid_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, as a crash would; what it leaves behind stays for the next start to recognise."""
        self._running().kill()

    def pause(self) -> None:
        """SIGSTOP: alive, holding its connections, answering nothing."""
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send(signal.SIGCONT)

    def end_leftover(self) -> None:
        """End a server of an earlier run of this folder whose owner died without taking it along. Called while we run none ourselves."""
        if not self.home.exists():
            return
        identity = read_identity(self._pid_path)
        if identity is not None and identity.alive():
            self.progress(f"{self.name}: ending pid {identity.pid}, left over from a crashed run")
            end_process(identity, self.stop_signal, self.stop_timeout_s)
        self._pid_path.unlink(missing_ok=True)

    def ended(self) -> None:  # noqa: B027  most servers leave nothing behind
        """Called after an orderly stop."""

    def launch(self, argv: list[str], *, cwd: Path | None = None, user: tuple[int, int] | None = None) -> Child:
        return spawn(self.name, argv, log_path=self.log_path, cwd=cwd, death_signal=self.death_signal, user=user)

    def _running(self) -> Child:
        if self._child is None:
            raise ServerError(f"{self.name} was not started")
        return self._child
