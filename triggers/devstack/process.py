"""Child processes that end with us: started through the guard, logged to a file, recognised again after a crash.

Knows nothing about servers. It refuses to signal a process by number alone: a pid read from a file counts only together with the start
time of the process that wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

_GUARD: Final = Path(__file__).with_name("guard.py")
_POLL_S: Final = 0.02
#: A log that has grown past this is set aside as `<name>.1` when its process starts the next time.
LOG_BYTES_MAX: Final = 16 * 1024 * 1024
#: Lines of a log shown in an error.
LOG_TAIL_LINES: Final = 15


@dataclass(frozen=True)
class Identity:
    """A process and when it began: together they name it for ever, also after its pid went to someone else."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; `None` if there is none, or only a zombie."""
        started = _started(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        return Identity.of(self.pid) == self


def _started(pid: int) -> str | None:
    stat = Path(f"/proc/{pid}/stat")
    if sys.platform == "linux":
        try:
            # The command in parentheses may hold spaces and parentheses itself: fields are counted from the last one.
            fields = stat.read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in {"Z", "X"} else f"{boot}/{fields[19]}"
    shown = subprocess.run(["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else began.strip()


def write_identity(path: Path, identity: Identity) -> None:
    """Atomically: a crash leaves the old file or the new one."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(identity)))
    draft.replace(path)


def read_identity(path: Path) -> Identity | None:
    """What `write_identity` wrote; `None` for a missing or unreadable file."""
    try:
        found = json.loads(path.read_text())
        return Identity(int(found["pid"]), str(found["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def end_process(identity: Identity, stop_signal: signal.Signals, timeout_s: float) -> None:
    """End a process that need not be a child of ours: the signal, then SIGKILL after `timeout_s`. Returns when it is gone."""
    for sent in (stop_signal, signal.SIGKILL):
        if not identity.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, sent)
            os.kill(identity.pid, signal.SIGCONT)
        deadline = time.monotonic() + timeout_s
        while identity.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, indented for an error message; empty if there is no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64 * 1024))
            found = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in found[-lines:])


class _Spawner:
    """The one thread that forks. The kernel's death signal fires when the forking *thread* ends, so it has to be one that never does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = -1
        self._work: SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]] = SimpleQueue()
        self._pipe: tuple[int, int] | None = None

    def run(self, fork: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        done: Future[subprocess.Popen[bytes]] = Future()
        with self._lock:
            self._own()
            self._work.put((fork, done))
        return done.result()

    def owner_pipe(self) -> int:
        """Read end of a pipe that reports end-of-file when this process is gone."""
        with self._lock:
            self._own()
            if self._pipe is None:
                self._pipe = os.pipe()
            return self._pipe[0]

    def _own(self) -> None:
        """A process forked from ours has no spawner thread, and its pipe would tell of the wrong owner: begin anew."""
        if self._owner == os.getpid():
            return
        self._owner = os.getpid()
        self._work = SimpleQueue()
        self._pipe = None
        threading.Thread(target=self._serve, name="devstack-spawner", daemon=True).start()

    def _serve(self) -> None:
        work = self._work
        while True:
            fork, done = work.get()
            try:
                done.set_result(fork())
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                done.set_exception(error)


_SPAWNER: Final = _Spawner()


class Child:
    """One running child, in a process group of its own. Safe to use from several threads."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._popen = popen
        found = Identity.of(popen.pid)
        # A child that ended already is named well enough by its pid: it stays a zombie of ours until it is waited for.
        self.identity = found or Identity(popen.pid, "ended")

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        """Exit status, negative for a signal; `None` while it runs."""
        return self._popen.poll()

    def alive(self) -> bool:
        return self.poll() is None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Exit status, or `None` if it still runs after `timeout_s`."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: signal.Signals) -> None:
        """To the process itself; nothing happens if it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and everything left in its process group; returns when it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.kill()
        self._popen.wait()

    def stop(self, stop_signal: signal.Signals, timeout_s: float) -> int:
        """The signal, then SIGKILL after `timeout_s`. Also wakes a paused process, which could not hear the signal. Returns its status."""
        self.send(stop_signal)
        self.send(signal.SIGCONT)
        if self.wait(timeout_s) is None:
            self.kill()
        return self._popen.wait()

    def rss_bytes(self) -> int | None:
        """Resident memory of this one process; `None` where /proc does not tell."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    user: tuple[int, int] | None = None,
    watch: bool = sys.platform != "linux",
) -> Child:
    """Start `argv` (an absolute path first) as a child that gets `death_signal` when this process dies, however it dies.

    `user` is (uid, gid) to become, for root only. `watch` uses a watching process instead of the kernel. Output goes to
    the end of `log_path`. Raises `OSError` if the guard itself cannot be started; a command that cannot run ends with status 127.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > LOG_BYTES_MAX:
        log_path.replace(log_path.with_name(log_path.name + ".1"))
    pipe = _SPAWNER.owner_pipe() if watch else -1
    uid, gid = user or (-1, -1)
    words = [sys.executable, "-I", "-S", str(_GUARD), *(str(n) for n in (os.getpid(), int(death_signal), uid, gid, pipe)), *argv]
    with log_path.open("ab") as log:

        def fork() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                # Ctrl-C on the terminal is for us to handle: children are stopped in order, not all at once by the terminal.
                start_new_session=True,
                pass_fds=(pipe,) if watch else (),
            )

        return Child(name, _SPAWNER.run(fork), log_path)
