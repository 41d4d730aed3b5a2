"""A whole system with load on it, for breaking: servers, processes with crash places, receivers, and a final independent look."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from runtime.lifecycle import EXIT_FATAL, EXIT_STALLED
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key
from tests.chaos.groups import Groups
from tests.chaos.look import Look
from tests.chaos.workload import Writer
from tests.conftest import TEST_ENVIRONMENT
from tests.flow.logs import bad_lines
from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import PROCESSES, System, until

_CONVERGE_S = 90.0
_MOVE_S = 60.0
#: The flaky receivers fail for the first seconds of each of these.
_PHASE_S = 6.0
_BAD_S = 3.0


class Rig:
    """One running system. `announced` collects what the supervisor says."""

    def __init__(self, folder: Path, *, modules: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`modules`: process name → module that is run in its place. `settings`: environment of every process."""
        self._folder = folder
        self._modules = dict(modules or {})
        self.announced: list[str] = []
        self.writers: list[Writer] = []
        self.endpoints: dict[str, list[str]] = {}
        self.paths: dict[str, str] = {}
        self._settings = dict(settings or {})
        self._deaths = 0
        self._flaky: Counter[tuple[str, str]] = Counter()
        self._flaky_lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Rig]:
        with ExitStack() as stack:
            self.stack = Stack(self._folder / "stack", progress=lambda _: None)
            stack.callback(self.stack.destroy)
            self.stack.start()
            environment = {
                **self.stack.settings_env(),
                **TEST_ENVIRONMENT,
                **self._settings,
                "TRIGGERS_API__PORT": str(free_ports(1)[0]),
                "PATH": "/usr/bin:/bin",
            }
            self.system = System(environment, self._folder / "logs", announce=self.announced.append)
            stack.callback(self.system.stop)
            self.system.prepare()
            for name, arguments in PROCESSES.items():
                self.start_process(name, arguments)
            self.receiver = stack.enter_context(Receiver())
            self.look = Look(self.system, self.receiver, self.writers, self.endpoints, self.paths)
            self.system.wait_ready()
            yield self

    def start_process(self, name: str, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None) -> None:
        armed = {"TRIGGERS_CRASH_FILE": str(self._crash_file(name)), **(extra or {})}
        if name in self._modules:
            environment = {
                **self.system.environment,
                **armed,
                "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}",
            }
            command = [sys.executable, "-m", self._modules[name]]
            self.system.supervisor.start(name, command, env=environment, log_path=self._folder / "logs" / f"{name}.log")
        else:
            self.system.start_process(name, arguments, armed)

    def load(self, organizations: int = 3, seed: int = 1, kinds: Sequence[str] = ("steady", "flaky", "fifo")) -> None:
        """Begin writing: each organization, in a partition of its own, has an endpoint that takes all but every ninth event, which it never
        takes, one that has bad times, and one that has them too and gets everything in order."""
        self._first_kind = kinds[0]
        for number, tenant in enumerate(self._tenants(organizations)):
            self.endpoints[tenant.organization] = []
            for kind in kinds:
                path = f"/{kind}/{number}"
                self.receiver.answers[path] = _fail_every_ninth if kind == "steady" else self._fail_in_bad_times
                self.add_endpoint(tenant.organization, path, fifo=kind == "fifo")
                self.endpoints[tenant.organization].append(self.paths[path])
            writer = Writer(self.system.url, tenant.organization, tenant.key, seed + number)
            self.writers.append(writer)
            writer.start()

    def add_endpoint(self, organization: OrganizationId, path: str, **members: Any) -> None:
        self.paths[path], self.receiver.secrets[path] = make_endpoint(
            self.system.settings, organization, self.receiver.url(path), **members
        )

    def _tenants(self, wanted: int) -> list[Tenant]:
        """Ids are random: made until so many lie in different partitions, so that two workers of a kind both have work."""
        partitions = self.system.settings.kafka.partitions
        assert wanted <= partitions
        found: dict[int, Tenant] = {}
        while len(found) < wanted:
            tenant = make_tenant(self.system.settings, f"org {len(found)}")
            found.setdefault(partition_of(record_key(tenant.organization), partitions), tenant)
        return list(found.values())

    def _fail_in_bad_times(self, received: Received, _: int) -> int:
        """Everything fails for a while, each event twice at most: breakers open, work is put off, and nothing need be given up. The second
        time the connection ends without an answer."""
        if received.at_s % _PHASE_S > _BAD_S:
            return 204
        delivery = (received.path, received.headers["webhook-id"])
        with self._flaky_lock:
            self._flaky[delivery] += 1
            before = self._flaky[delivery]
        if before == 2:
            raise ConnectionAbortedError
        return 500 if before == 1 else 204

    # -- faults

    def _crash_file(self, name: str) -> Path:
        return self._folder / f"{name}.crash"

    def crash_at(self, places: Mapping[str, tuple[str, int]]) -> None:
        """Kill each named process with -9 exactly at its (place, count), the `count`-th time it comes there; returns when all are dead.

        Raises `TimeoutError` if one never comes there: its file goes only when the place is reached.
        """
        for name, (place, count) in places.items():
            self._crash_file(name).write_text(f"{place}:{count}")
            self.system.supervisor.kill(name)  # its next life reads the file
        for name, (place, _) in places.items():
            armed = self._crash_file(name)
            until(lambda armed=armed: not armed.exists(), _MOVE_S, f"{name} dying at {place}")  # type: ignore[misc]  # a bound default is not inferred

    def kill(self, name: str) -> None:
        self.system.supervisor.kill(name)

    def second_worker(self, name: str) -> str:
        """One more worker of a kind, in a slot of its own; its name. Returns when both own partitions."""
        return self.join(name, 0, 1)

    def join(self, name: str, *slots: int) -> str:
        """One more worker of a kind, in the last of `slots`; its name. Returns when all of these slots own partitions."""
        slot = str(slots[-1])
        self.start_process(f"{name}-{slot}", PROCESSES[name], {"TRIGGERS_PROCESSOR__SLOT": slot, "TRIGGERS_DELIVERY__SLOT": slot})
        self.wait_owners(name, *slots)
        return f"{name}-{slot}"

    def leave(self, name: str, last: str, *slots: int) -> None:
        """The last worker goes for good; returns when those in `slots` (by default the first) own everything."""
        self._deaths += self.system.supervisor.restart_count(last)
        self.system.supervisor.stop(last)
        self.wait_owners(name, *(slots or (0,)))

    def deaths(self, name: str) -> int:
        """How often a worker of this kind ended without being asked to."""
        supervisor = self.system.supervisor
        return self._deaths + sum(supervisor.restart_count(one) for one in supervisor.names() if one.partition("-")[0] == name)

    def wait_owners(self, name: str, *slots: int) -> None:
        """Until the workers in these slots own partitions and nobody else does. Group, static members and process share their name."""
        wanted = {f"{name}-{slot}" for slot in slots}
        groups = Groups(self.system.settings.kafka)  # anew each time: the broker may have been away since
        seen: object = None

        def moved() -> bool:
            nonlocal seen
            try:
                seen = owned = groups.owned(name)
            except KafkaException as error:
                seen = error
                return False
            return {member for member, partitions in owned.items() if partitions} == wanted

        try:
            until(moved, _MOVE_S, f"{', '.join(sorted(wanted))} owning all partitions", 0.3)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the broker says: {seen}") from None

    def owned(self, name: str) -> dict[str, set[int]]:
        """Partitions of each worker of a kind that the group shares out."""
        owned = Groups(self.system.settings.kafka).owned(name)
        return {member: {number for _, number in places} for member, places in owned.items()}

    @contextmanager
    def standing_still(self, name: str) -> Iterator[None]:
        """SIGSTOP, then SIGCONT: the process does not know that time has passed, and must end itself when it finds out."""
        supervisor = self.system.supervisor
        until(lambda: supervisor.alive(name), 20, f"{name} being alive")
        restarts = supervisor.restart_count(name)
        pid = supervisor.kill(name, signal.SIGSTOP)
        until(lambda: _state(pid) == "T", 5, f"{name} standing still")
        yield
        assert supervisor.restart_count(name) == restarts, f"{name} did not stand still"
        supervisor.kill(name, signal.SIGCONT)
        until(lambda: supervisor.restart_count(name) > restarts, 30, f"{name} ending itself after it stood still")
        last = next(line for line in reversed(self.announced) if line.startswith(f"[{name}] exited"))
        assert any(f"exited with {status}," in last for status in (EXIT_STALLED, EXIT_FATAL)), last

    def progress(self, events: int = 15, timeout_s: float = 60) -> None:
        """Until so many more events were posted with certainty."""
        target = self._certain() + events
        until(lambda: self._certain() >= target or self._failed(), timeout_s, f"{events} more events being posted")
        self._raise_failure()

    def recovered(self, timeout_s: float = 60) -> None:
        """Until events that are posted from now on are in the inbox and delivered for the first time, of every organization."""
        before = {writer: len(writer.posted) for writer in self.writers}
        until(
            lambda: self._failed() or all(writer.certain[-1:] and writer.certain[-1].number >= before[writer] for writer in self.writers),
            timeout_s, "every organization posting an event",
        )  # fmt: skip
        self._raise_failure()
        for number, writer in enumerate(self.writers):
            event = writer.certain[-1]
            last = (event.created or event.named)[0]
            until(lambda writer=writer, last=last: self.look.accepted(writer, last), timeout_s, f"{last} reaching the inbox", 0.2)  # type: ignore[misc]  # a bound default is not inferred
            path = f"/{self._first_kind}/{number}"
            until(
                lambda path=path, last=last: any(one.headers["webhook-id"] == last for one in self.receiver.of(path)),  # type: ignore[misc]
                timeout_s, f"{last} being delivered",
            )  # fmt: skip

    def _certain(self) -> int:
        return sum(len(writer.certain) for writer in self.writers)

    def _failed(self) -> bool:
        return any(writer.failure is not None for writer in self.writers)

    def _raise_failure(self) -> None:
        for writer in self.writers:
            if writer.failure is not None:
                raise writer.failure

    # -- the end

    def settle(self, *, copies_max: int = 1, timeout_s: float = _CONVERGE_S) -> list[str]:
        """Stop the load, wait until the system has come to rest, and say everything that is wrong."""
        for writer in self.writers:
            writer.stop()
        for writer in self.writers:
            writer.join(150)
        self._raise_failure()
        for path, answer in self.receiver.answers.items():
            if answer is _fail_every_ninth:  # with nothing behind them that succeeds, the rest would be probed one by one
                self.receiver.answers[path] = _take
        certain = self._certain()
        assert certain > 0, "nothing was posted: the run shows nothing"
        print(f"{certain} events, {len(self.receiver.received)} webhooks", flush=True)
        try:
            until(lambda: sum(map(len, self.look.inboxes().values())) >= certain, timeout_s, "every event reaching the inbox", 0.3)
            until(self.look.all_delivered, timeout_s, "every event being delivered", 0.5)
        except TimeoutError as error:
            return [str(error), *self.look.anomalies(copies_max, self.deaths("delivery")), *self._bad_lines()]
        return [*self.look.anomalies(copies_max, self.deaths("delivery")), *self._bad_lines()]

    def _bad_lines(self) -> list[str]:
        """Whatever a process died of, its log is JSON, and no exception was left to the interpreter."""
        return [one for path in sorted((self._folder / "logs").iterdir()) for one in bad_lines(path)]


def _fail_every_ninth(received: Received, _before: int) -> int:
    """It is given up, and the breaker stays closed. Not where times are bad: an endpoint that has nothing left but what fails is probed
    only, which takes long."""
    return 500 if json.loads(received.body)["data"]["number"] % 9 == 8 else 204


def _take(_received: Received, _before: int) -> int:
    return 204


def _state(pid: int) -> str:
    """T: stopped (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


Fault = Callable[[Rig], None]
