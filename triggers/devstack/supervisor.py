"""Keeps the application's processes running: one that dies is started again, visibly and ever more slowly; stopping has an end.

For `triggers dev` and the tests. It refuses to judge why a process ended: also one that ends with status 0 was meant to run.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from triggers.devstack.process import Child, spawn

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 10.0
#: A process that ran this long is well: its next restart is quick again.
HEALTHY_AFTER_S: Final = 10.0
#: Granted between SIGTERM and SIGKILL.
STOP_TIMEOUT_S: Final = 10.0


def next_backoff_s(previous_s: float, ran_s: float) -> float:
    """Pause before the next restart, in seconds: doubled from the previous one (0: none yet) up to the limit, reset by a healthy run."""
    if previous_s <= 0 or ran_s >= HEALTHY_AFTER_S:
        return BACKOFF_FIRST_S
    return min(previous_s * 2, BACKOFF_MAX_S)


@dataclass
class _Program:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None
    log_path: Path
    child: Child
    stopping: threading.Event = field(default_factory=threading.Event)
    restarts: int = 0
    watcher: threading.Thread | None = None


class Supervisor:
    """Runs named processes. Every method may be called from any thread."""

    def __init__(self, announce: Callable[[str], None] = print, *, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self._announce = announce
        self._stop_timeout_s = stop_timeout_s
        self._lock = threading.Lock()
        self._programs: dict[str, _Program] = {}

    def start(self, name: str, argv: Sequence[str], *, log_path: Path, env: Mapping[str, str] | None = None) -> None:
        """Start a process and keep it running. `argv[0]` is an absolute path; `env` is its whole environment (`None`: ours).

        Raises `ValueError` if one of this name runs already.
        """
        with self._lock:
            if name in self._programs:
                raise ValueError(f"{name} runs already")
            program = _Program(name, list(argv), env, log_path, self._spawn(name, argv, env, log_path))
            self._programs[name] = program
        program.watcher = threading.Thread(target=self._watch, args=(program,), name=f"supervise-{name}", daemon=True)
        program.watcher.start()

    def names(self) -> list[str]:
        """In the order they were started."""
        with self._lock:
            return list(self._programs)

    def pid(self, name: str) -> int:
        """Of the process that runs now, or ran last. Raises `KeyError` for an unknown name."""
        return self._program(name).child.pid

    def alive(self, name: str) -> bool:
        return self._program(name).child.alive()

    def restart_count(self, name: str) -> int:
        return self._program(name).restarts

    def log_path(self, name: str) -> Path:
        return self._program(name).log_path

    def rss_bytes(self, name: str) -> int | None:
        return self._program(name).child.rss_bytes()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the process and return its pid; it comes back by itself if it dies of it."""
        child = self._program(name).child
        child.send(number)
        return child.pid

    def stop(self, name: str | None = None) -> None:
        """Stop one process, or all in the reverse order of their start: SIGTERM, then SIGKILL after the limit. They stay stopped."""
        for one in reversed(self.names()) if name is None else [name]:
            with self._lock:
                program = self._programs.pop(one, None)
                if program is None:
                    continue
                # Under the lock: from here on the watcher starts nothing any more.
                program.stopping.set()
                child = program.child
            ran = child.alive()
            status = child.stop(signal.SIGTERM, self._stop_timeout_s)
            if ran and status == -signal.SIGKILL:
                self._announce(f"[{one}] did not stop within {self._stop_timeout_s:g} s and was killed")
            if program.watcher is not None:
                program.watcher.join()

    def _program(self, name: str) -> _Program:
        with self._lock:
            return self._programs[name]

    def _spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None, log_path: Path) -> Child:
        return spawn(name, argv, log_path=log_path, env=env)

    def _watch(self, program: _Program) -> None:
        pause_s = 0.0
        while True:
            began = time.monotonic()
            status = program.child.wait()
            if program.stopping.is_set():
                return
            pause_s = next_backoff_s(pause_s, time.monotonic() - began)
            self._announce(f"[{program.name}] exited with {status}, restarting in {pause_s:g} s")
            if program.stopping.wait(pause_s):
                return
            with self._lock:
                if program.stopping.is_set():
                    return
                try:
                    program.child = self._spawn(program.name, program.argv, program.env, program.log_path)
                    program.restarts += 1
                except OSError as error:
                    # The machine is out of something; the next round finds the same dead child and tries again, later.
                    self._announce(f"[{program.name}] could not be started: {error}")
