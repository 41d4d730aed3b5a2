"""The three servers as one: started and stopped together on one state folder that survives restarts and crashes.

One process owns a state folder at a time. The stack makes no topics and no tables: that is the business of `triggers topics` and
`triggers migrate`, the same as against given servers.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from triggers.devstack import ports as port_choice
from triggers.devstack import unprivileged
from triggers.devstack.jars import default_cache, jars
from triggers.devstack.kafka import Kafka
from triggers.devstack.ports import Ports
from triggers.devstack.postgres import Postgres
from triggers.devstack.redis import Redis
from triggers.devstack.server import Cancelled, Server, ServerError

#: A thread that starts a server notices a cancellation within moments; it is waited for this long.
_CANCEL_TIMEOUT_S: Final = 30.0
#: How often a start is tried again because a port was snatched away.
_START_ATTEMPTS: Final = 3


class StateFolderBusy(ServerError):
    """Another live process owns the state folder; the message names its pid."""


@dataclass(frozen=True)
class Secrets:
    """Made once per state folder and kept with it: data encrypted or guarded with them outlives a restart."""

    master_keys: str
    postgres_password: str
    redis_password: str

    @classmethod
    def make(cls) -> Secrets:
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        return cls(f"local:{key}", secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    @classmethod
    def of(cls, path: Path) -> Secrets:
        """Those kept in `path`, made now if there are none. Raises `ServerError` for a damaged file: new keys would not open old data."""
        if not path.exists():
            made = cls.make()
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(asdict(made)) + "\n")
            draft.replace(path)
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ServerError(f"the secrets in {path} cannot be read: {error}; remove the state folder to begin anew") from error


class Stack:
    """A local Kafka, PostgreSQL and Redis with their state in `state_dir`. Use it from one thread; also a context manager.

    `ports` are given for good; without them they are chosen on the first start, remembered, and chosen again if taken.
    `progress` gets a line for whatever takes long, possibly from another thread.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        ports: Ports | None = None,
        progress: Callable[[str], None] = print,
        cache_dir: Path | None = None,
    ) -> None:
        self.state_dir = state_dir.absolute()
        self._given_ports = ports
        self._progress = progress
        self._cache_dir = cache_dir or default_cache()
        self._cancel = threading.Event()
        self._lock: IO[str] | None = None
        self._secrets: Secrets | None = None
        self._servers: tuple[Kafka, Postgres, Redis] | None = None

    @property
    def kafka(self) -> Kafka:
        return self._started()[0]

    @property
    def postgres(self) -> Postgres:
        return self._started()[1]

    @property
    def redis(self) -> Redis:
        return self._started()[2]

    @property
    def servers(self) -> tuple[Server, ...]:
        return self._started()

    def start(self) -> None:
        """Returns when all three answer. On any failure, Ctrl-C included, nothing is left running.

        Raises `StateFolderBusy` if another process owns the folder, `ServerError` naming the server at fault and its log.
        """
        self._acquire()
        try:
            self._cancel.clear()
            self._secrets = Secrets.of(self.state_dir / "secrets.json")
            # Here and not in the thread that starts Kafka: a fetch in the main thread ends at once with Ctrl-C.
            jars(self._cache_dir, self._progress)
            self._start_on_free_ports(self._secrets)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what runs, in order where it answers, by SIGKILL where it does not; then give up the folder. May be called twice."""
        try:
            if self._servers is not None:
                self._together("stop", Server.stop)
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def destroy(self) -> None:
        """Stop, and remove the state folder with all data, wherever it lies. For stacks of tests and demonstrations."""
        self.stop()
        unprivileged.remove(self.state_dir / "postgres")
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def settings_env(self) -> dict[str, str]:
        """The environment that makes every process of the project use this stack. Holds secrets. Raises `ServerError` before a start."""
        kafka, postgres, redis = self._started()
        if self._secrets is None:
            raise ServerError("the local stack was not started")
        return {
            "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TRIGGERS_POSTGRES__DSN": postgres.dsn,
            "TRIGGERS_REDIS__URL": redis.url,
            "TRIGGERS_MASTER_KEYS": self._secrets.master_keys,
            "TRIGGERS_PROCESSOR__DATA_DIR": str(self.state_dir / "processors"),
            "TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS": "true",
        }

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _started(self) -> tuple[Kafka, Postgres, Redis]:
        if self._servers is None:
            raise ServerError("the local stack was not started")
        return self._servers

    def _acquire(self) -> None:
        """Own the folder. The kernel gives up the lock of a dead process by itself, so a stale lock file means nothing."""
        if self._lock is not None:
            raise StateFolderBusy(f"this stack on {self.state_dir} is started already")
        self.state_dir.mkdir(parents=True, exist_ok=True)
        (self.state_dir / "processors").mkdir(exist_ok=True)
        lock = (self.state_dir / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StateFolderBusy(
                f"{self.state_dir} is in use by the local stack of process {owner}; stop it, or use another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _make_servers(self, ports: Ports, kept: Secrets) -> tuple[Kafka, Postgres, Redis]:
        progress, cancel = self._progress, self._cancel
        kafka = Kafka(
            self.state_dir / "kafka",
            port=ports.kafka,
            controller_port=ports.kafka_controller,
            cache_dir=self._cache_dir,
            progress=progress,
            cancel=cancel,
        )
        postgres = Postgres(
            self.state_dir / "postgres", port=ports.postgres, password=kept.postgres_password, progress=progress, cancel=cancel
        )
        redis = Redis(self.state_dir / "redis", port=ports.redis, password=kept.redis_password, progress=progress, cancel=cancel)
        return kafka, postgres, redis

    def _start_on_free_ports(self, kept: Secrets) -> None:
        """A port can be taken between the moment it is found free and the moment a server listens: then all three start anew."""
        remembered_in = self.state_dir / "ports.json"
        ports = self._given_ports or port_choice.load(remembered_in) or port_choice.choose()
        for attempt in range(1, _START_ATTEMPTS + 1):
            servers = self._make_servers(ports, kept)
            # A leftover of a crashed run would seem to be somebody else who has taken its ports.
            for server in servers:
                server.end_leftover()
            free = port_choice.still_good(ports)
            if free != ports and self._given_ports is not None:
                taken = sorted(set(asdict(ports).values()) - set(asdict(free).values()))
                raise ServerError(f"the local stack cannot start: port {taken[0]} is taken by another process")
            if free != ports:
                ports = free
                servers = self._make_servers(ports, kept)
            port_choice.save(remembered_in, ports)
            self._servers = servers
            try:
                self._together("start", Server.bring_up)
            except Cancelled:
                raise
            except ServerError:
                self._together("stop", Server.stop)
                if attempt == _START_ATTEMPTS or port_choice.still_good(ports) == ports:
                    raise
            else:
                return

    def _together(self, what: str, act: Callable[[Server], None]) -> None:
        """Do the same with all servers at once. Raises the first error when all are done; cancels the others' starts on the way."""
        failed: list[BaseException] = []

        def run(server: Server) -> None:
            try:
                act(server)
            except BaseException as error:  # noqa: BLE001  carried over to the calling thread, whatever it is
                failed.append(error)
                self._cancel.set()

        # Daemons, not a pool: an interpreter that ends does not wait for them, and their children end with it.
        threads = [threading.Thread(target=run, args=(one,), name=f"{what}-{one.name}", daemon=True) for one in self.servers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._cancel.set()
            for thread in threads:
                thread.join(_CANCEL_TIMEOUT_S)
            raise
        # The one that failed by itself comes before those given up because of it.
        failed.sort(key=lambda error: isinstance(error, Cancelled))
        if failed:
            raise failed[0]
