"""A whole system with load on it, for breaking: servers, processes with crash places, receivers, and a final independent look."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas import codec
from schemas.events import is_reserved
from schemas.ids import EventId
from schemas.topics import DELIVERIES_ATTEMPTS, retry_topic
from tests.chaos.checks import Leg, Row, check_deliveries, check_inbox
from tests.chaos.workload import Writer
from tests.conftest import TEST_ENVIRONMENT
from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack
from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import PROCESSES, System, until

#: The group waits this long for a member that stands still (see TEST_ENVIRONMENT), and a little more.
SESSION_S = 6.0
_CONVERGE_S = 90.0
#: The flaky receiver fails for the first seconds of each of these.
_PHASE_S = 6.0
_BAD_S = 3.0


class _Item(msgspec.Struct):
    id: str
    type: str
    status: str
    payload: msgspec.Raw


class _Page(msgspec.Struct):
    events: list[_Item]
    next_cursor: str
    has_more: bool


_page = msgspec.json.Decoder(_Page)


class Rig:
    """One running system. `announced` collects what the supervisor says."""

    def __init__(self, folder: Path, *, modules: Mapping[str, str] | None = None) -> None:
        """`modules`: process name → module that is run in its place."""
        self._folder = folder
        self._modules = dict(modules or {})
        self.announced: list[str] = []
        self.writers: list[Writer] = []
        self.endpoints: dict[str, list[str]] = {}
        self._flaky: Counter[str] = Counter()
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
                "TRIGGERS_API__PORT": str(free_ports(1)[0]),
                "PATH": "/usr/bin:/bin",
            }
            self.system = System(environment, self._folder / "logs", announce=self.announced.append)
            stack.callback(self.system.stop)
            self.system.prepare()
            for name, arguments in PROCESSES.items():
                self.start_process(name, arguments)
            self.receiver = stack.enter_context(Receiver())
            self.receiver.answers["/flaky"] = self._fail_in_bad_times
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

    def second_worker(self, name: str) -> str:
        """One more worker of a kind, in a slot of its own; its name."""
        slot = {"TRIGGERS_PROCESSOR__SLOT": "1", "TRIGGERS_DELIVERY__SLOT": "1"}
        self.start_process(f"{name}-1", PROCESSES[name], slot)
        return f"{name}-1"

    def load(self, organizations: int = 3, seed: int = 1) -> None:
        """Begin writing: each organization has an endpoint that takes everything and one that has bad times."""
        for number in range(organizations):
            tenant = make_tenant(self.system.settings, f"org {number}")
            made = [make_endpoint(self.system.settings, tenant.organization, self.receiver.url(path)) for path in ("/steady", "/flaky")]
            self.endpoints[tenant.organization] = [endpoint for endpoint, _ in made]
            writer = Writer(self.system.url, tenant.organization, tenant.key, seed + number)
            self.writers.append(writer)
            writer.start()

    def _fail_in_bad_times(self, received: Received, _before: int) -> int:
        """Everything fails for a while, each event twice at most: breakers open, work is put off, and nothing need be given up."""
        if received.at_s % _PHASE_S > _BAD_S:
            return 204
        with self._flaky_lock:
            self._flaky[received.headers["webhook-id"]] += 1
            return 500 if self._flaky[received.headers["webhook-id"]] <= 2 else 204

    # -- faults

    def _crash_file(self, name: str) -> Path:
        return self._folder / f"{name}.crash"

    def crash_at(self, name: str, place: str, count: int = 1) -> None:
        """Kill process `name` with -9 exactly at `place`, the `count`-th time it comes there; returns when it has happened."""
        armed = self._crash_file(name)
        armed.write_text(f"{place}:{count}")
        self.system.supervisor.kill(name)  # its next life reads the file
        until(lambda: not armed.exists(), 40, f"{name} dying at {place}")

    def kill(self, name: str) -> None:
        self.system.supervisor.kill(name)

    def stand_still(self, name: str, seconds: float) -> None:
        """SIGSTOP, then SIGCONT after a while: the process does not know that time has passed."""
        self.system.supervisor.kill(name, signal.SIGSTOP)
        time.sleep(seconds)  # the fault itself, not a wait for something
        self.system.supervisor.kill(name, signal.SIGCONT)

    def progress(self, events: int = 15, timeout_s: float = 60) -> None:
        """Until so many more events were posted with certainty, and the last of one organization so far is in its inbox."""
        target = self._certain() + events
        until(lambda: self._certain() >= target or self._failed(), timeout_s, f"{events} more events being posted")
        self._raise_failure()
        writer = self.writers[0]
        last = next(event.created[-1] for event in reversed(writer.posted) if event.created)
        with httpx.Client(base_url=self.system.url, headers={"X-API-Key": writer.key}, timeout=10) as client:
            until(lambda: b'"accepted"' in self._get(client, f"/events/{last}", {}), timeout_s, f"{last} reaching the inbox", 0.2)

    def _certain(self) -> int:
        return sum(len(writer.posted) for writer in self.writers)

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
        posted = sum(len(writer.posted) for writer in self.writers)
        assert posted > 0, "nothing was posted: the run shows nothing"
        try:
            until(lambda: sum(map(len, self.inboxes().values())) >= posted, timeout_s, "every event reaching the inbox", 0.3)
            until(self._all_delivered, timeout_s, "every event being delivered", 0.5)
        except TimeoutError as error:
            return [str(error), *self._anomalies(copies_max)]
        return self._anomalies(copies_max)

    def _anomalies(self, copies_max: int) -> list[str]:
        anomalies: list[str] = []
        inboxes, journal, legs = self.inboxes(), self.journal(), self.legs()
        for writer in self.writers:
            rows = inboxes[writer.organization]
            found = check_inbox(writer.posted, rows, self._explain(writer))
            found += check_deliveries(
                (row.event_id for row in rows), self.endpoints[writer.organization], journal, legs, copies_max=copies_max
            )
            anomalies += [f"{writer.organization}: {one}" for one in found]
        if bad := [one for one in self.receiver.received if one.verified is False]:
            anomalies.append(f"{len(bad)} webhooks with a wrong signature")
        return anomalies

    def inboxes(self, limit_pages: int = 10_000) -> dict[str, list[Row]]:
        """Every inbox, walked by cursor in small pages."""
        return {writer.organization: self._walk(writer.key, limit_pages) for writer in self.writers}

    def _walk(self, key: str, limit_pages: int) -> list[Row]:
        rows: list[Row] = []
        cursor: str | None = None
        with httpx.Client(base_url=self.system.url, headers={"X-API-Key": key}, timeout=10) as client:
            for _ in range(limit_pages):
                answer = self._get(client, "/inbox", {"status": "all", "limit": "97", **({"cursor": cursor} if cursor else {})})
                page = _page.decode(answer)
                rows += [Row(item.id, bytes(item.payload)) for item in page.events if not is_reserved(item.type)]
                cursor = page.next_cursor
                if not page.has_more:
                    break
        return rows

    @staticmethod
    def _get(client: httpx.Client, path: str, params: Mapping[str, str]) -> bytes:
        deadline_s = time.monotonic() + 40
        while True:
            try:
                answer = client.get(path, params=dict(params))
                if answer.status_code in (200, 404):
                    return answer.content
                if answer.status_code != 503:
                    raise AssertionError(f"GET {path} answered {answer.status_code}: {answer.text}")
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline_s:
                raise AssertionError(f"GET {path} was not answered within 40 s")
            time.sleep(0.2)

    def _explain(self, writer: Writer) -> dict[str, tuple[str, str | None]]:
        told: dict[str, tuple[str, str | None]] = {}
        with httpx.Client(base_url=self.system.url, headers={"X-API-Key": writer.key}, timeout=10) as client:
            ids: set[EventId] = {event_id for event in writer.posted for event_id in (*event.created, *event.named)}
            for event_id in ids:
                document = json.loads(self._get(client, f"/events/{event_id}", {}))
                told[event_id] = ("missing", None) if document["status"] == 404 else (document["status"], document.get("original_id"))
        return told

    def _all_delivered(self) -> bool:
        for writer in self.writers:
            with httpx.Client(base_url=self.system.url, headers={"X-API-Key": writer.key}, timeout=10) as client:
                cursor: str | None = None
                while True:
                    answer = self._get(client, "/inbox", {"status": "all", "limit": "1000", **({"cursor": cursor} if cursor else {})})
                    page = _page.decode(answer)
                    if any(item.status != "delivered" for item in page.events if not is_reserved(item.type)):
                        return False
                    cursor = page.next_cursor
                    if not page.has_more:
                        break
        return True

    def journal(self) -> list[Any]:
        return [codec.journal.decode(value) for value in self.topic(DELIVERIES_ATTEMPTS)]

    def legs(self) -> list[Leg]:
        tasks = (
            codec.retry_task.decode(value) for delay in self.system.settings.delivery.delays_s for value in self.topic(retry_topic(delay))
        )
        return [Leg(task.event_id, task.endpoint_id, task.attempt, task.hop) for task in tasks]

    def topic(self, name: str) -> list[bytes]:
        """Every value of a topic, read from offset 0 by a consumer of its own."""
        kafka = self.system.settings.kafka
        consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": "chaos-look",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([TopicPartition(name, partition, 0) for partition in range(kafka.partitions)])
            values: list[bytes] = []
            ended = 0
            while ended < kafka.partitions:
                for message in consumer.consume(1_000, 0.2):
                    if (error := message.error()) is None:
                        values.append(message.value() or b"")
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended += 1
            return values
        finally:
            consumer.close()


Fault = Callable[[Rig], None]
