"""Servers and processes of a benchmark, on ports and in a folder of their own, and what is looked at after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import psutil

from benchmarks.load import Load, Outcome
from runtime.postgres import connect
from runtime.topics import admin
from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack
from triggers.provision import Tenant, make_tenant
from triggers.system import PROCESSES, System, until

_DRAIN_TIMEOUT_S = 600.0
_REQUEST_TIMEOUT_S = 10.0
#: Event ids looked for in one statement, well within the time a statement gets.
_IDS_AT_ONCE = 5_000
#: Joined, not `= ANY`: a prepared statement compares each row with each id of an array it does not know yet.
_FOUND = "SELECT count(*) FROM folds.inbox JOIN unnest(%s::text[]) AS wanted (event_id) USING (event_id)"


class Rig:
    """`system` is prepared (tables and topics) and runs nothing until it is told to."""

    def __init__(self, stack: Stack, system: System, folder: Path) -> None:
        self.stack = stack
        self.system = system
        self.folder = folder
        self._loads = 0

    def tenants(self, count: int) -> list[Tenant]:
        return [make_tenant(self.system.settings, f"bench {number}") for number in range(count)]

    def start_api(self) -> int:
        """The port of one API process, once it is ready."""
        self.system.start_process("api", PROCESSES["api"])
        self.system.wait_ready()
        return self.system.settings.api.port

    def start_server(self, name: str, application: str, *, workers: int = 1) -> int:
        """The port of a comparator: any ASGI application, on the uvicorn and event loop that ours is on."""
        port = free_ports(1)[0]
        argv = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--no-access-log", "--log-level", "warning",
                "--loop", "uvloop", "--http", "httptools", "--workers", str(workers)]  # fmt: skip
        self.system.supervisor.start(
            name, argv, env={**self.system.environment, "PYTHONPATH": str(Path.cwd())}, log_path=self.folder / name
        )
        until(lambda: _listens(port), 30, f"{name} listening")
        return port

    def load(self, load: Load) -> Outcome:
        """Run a load generator in a process of its own."""
        self._loads += 1
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.load"],
            input=json.dumps({**asdict(load), "run": f"{load.run}.{self._loads}"}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode:
            raise RuntimeError(found.stderr)
        return Outcome(**json.loads(found.stdout))

    def cpu_s(self, name: str) -> float:
        """CPU seconds, user and system, a process of the system and its children have used."""
        process = psutil.Process(self.system.supervisor.pid(name))
        return float(sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True))))

    def database_cpu_s(self) -> float:
        """CPU seconds of the whole database server, with those of its processes that have ended."""
        server = psutil.Process(self.stack.postgres.pid)
        used_s = 0.0
        for one in server.children():
            with suppress(psutil.NoSuchProcess):  # it ended just now: the server's own times have it
                used_s += sum(one.cpu_times()[:2])
        return used_s + float(sum(server.cpu_times()[:4]))

    def resident_mb(self, name: str) -> float:
        return float(psutil.Process(self.system.supervisor.pid(name)).memory_info().rss) / 1e6

    def members(self, group: str) -> int:
        """How many members of a consumer group own partitions."""
        client = admin(self.system.settings.kafka)
        members = client.describe_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT_S)[group].result(_REQUEST_TIMEOUT_S).members
        return sum(bool(member.assignment.topic_partitions) for member in members)

    def check_inbox(self, ids: Sequence[str]) -> None:
        """Let the processors drain, then: every id of a 201 is in the inbox once. Raises `AssertionError`."""
        assert len(set(ids)) == len(ids), "an id was given twice"
        with connect(self.system.settings.postgres, application="bench") as connection:
            connection.autocommit = True

            parts = [list(ids[at : at + _IDS_AT_ONCE]) for at in range(0, len(ids), _IDS_AT_ONCE)]

            def all_found() -> bool:
                while parts:
                    row = connection.execute(_FOUND, (parts[-1],)).fetchone()
                    if row is None or int(row[0]) != len(parts[-1]):
                        return False
                    parts.pop()
                return True

            until(all_found, _DRAIN_TIMEOUT_S, "every 201 in the inbox", 0.5)


@contextmanager
def rig(**environment: str) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        stack = Stack(folder / "stack", progress=lambda _: None)
        stack.start()
        try:
            ours = {key: value for key, value in os.environ.items() if not key.startswith("TRIGGERS_")}
            made = {
                **ours, **stack.settings_env(), "TRIGGERS_API__PORT": str(free_ports(1)[0]),
                "TRIGGERS_PROCESSOR__DATA_DIR": str(folder / "processors"), **environment,
            }  # fmt: skip
            system = System(made, folder / "logs", announce=lambda line: print(line, flush=True))
            system.prepare()
            try:
                yield Rig(stack, system, folder)
            finally:
                system.stop()
        finally:
            stack.destroy()


class Sink:
    """A `benchmarks.sink` process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "received"
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink", str(self._path)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def stop(self) -> list[tuple[str, str, float]]:
        """(webhook-id, path, Unix seconds) of every request, in order."""
        self._process.terminate()
        self._process.wait(60)
        lines = [line.split(" ") for line in self._path.read_text().splitlines()]
        return [(identity, path, float(at_s)) for identity, path, at_s in lines]


def read_times(path: Path) -> dict[str, float]:
    """Event ids of a load's 201s, and when each came, as Unix seconds."""
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    found = {event_id: float(at_s) for event_id, at_s in lines}
    assert len(found) == len(lines), "an id was given twice"
    return found


def read_ids(path: Path) -> list[str]:
    return list(read_times(path))


def _listens(port: int) -> bool:
    return any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in psutil.net_connections("tcp") if c.laddr)
