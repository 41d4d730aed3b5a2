"""A dedup worker that was away longer than its changelog remembers must still know what it has seen."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import TopicPartition

from projections.log_reader import bounds
from runtime.settings import KafkaSettings
from runtime.topics import admin
from schemas.topics import DEDUP_CHANGELOG, EVENTS_ACCEPTED
from tests.chaos.rig import Rig
from triggers.provision import make_tenant
from triggers.system import PROCESSES, argv, until

REBUILD = argv("rebuild", "dedup")
BODY = b'{"type":"a.b","idempotency_key":"k","payload":%d}'


def empty_changelog(kafka: KafkaSettings) -> None:
    operator = admin(kafka)
    emptied = operator.delete_records([TopicPartition(DEDUP_CHANGELOG, number, -1) for number in range(kafka.partitions)])
    for answer in emptied.values():
        answer.result(20)


def ends(kafka: KafkaSettings) -> int:
    """How many records there are of what dedup forwards."""
    return sum(part.end for part in bounds(kafka, [(EVENTS_ACCEPTED, number) for number in range(kafka.partitions)]).values())


class Caller:
    """An organization that posts events of one idempotency key."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        headers = {"X-API-Key": make_tenant(rig.system.settings, "absent").key, "Content-Type": "application/json"}
        self.client = httpx.Client(base_url=rig.system.url, headers=headers, timeout=10)

    def post(self, payload: int) -> str:
        return str(self.client.post("/events", content=BODY % payload).json()["id"])

    def status(self, event_id: str) -> str:
        return str(self.client.get(f"/events/{event_id}").json()["status"])

    def accepted(self) -> str:
        """A first event, which dedup has seen."""
        first = self.post(1)
        until(lambda: self.status(first) == "accepted", 30, "the first event")
        return first

    def again_when_all_is_forgotten(self) -> str:
        """A second event, with dedup stopped, a Redis that has forgotten, and neither table nor changelog left."""
        self._rig.system.supervisor.stop("dedup")
        self._rig.stack.redis.kill()
        self._rig.stack.redis.bring_up()
        second = self.post(2)
        shutil.rmtree(Path(self._rig.system.environment["TRIGGERS_PROCESSOR__DATA_DIR"]) / "dedup-0")
        empty_changelog(self._rig.system.settings.kafka)
        return second

    def judged(self, event_id: str) -> str:
        until(lambda: self.status(event_id) != "pending", 30, "the second event being judged", 0.2)
        return self.status(event_id)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path).running() as running:
        yield running


@pytest.fixture
def caller(rig: Rig) -> Iterator[Caller]:
    made = Caller(rig)
    with made.client:
        yield made


@pytest.mark.verify
@pytest.mark.timeout(120)
def test_an_event_seen_before_the_absence_is_still_a_duplicate_when_table_and_changelog_are_gone(rig: Rig, caller: Caller) -> None:
    first = caller.accepted()
    second = caller.again_when_all_is_forgotten()
    assert second != first
    rig.start_process("dedup", PROCESSES["dedup"], {"TRIGGERS_PROCESSOR__REBUILD_AFTER_S": "0.001"})
    assert caller.judged(second) == "conflict"
    assert [event["id"] for event in caller.client.get("/inbox").json()["events"]] == [first]


@pytest.mark.verify
@pytest.mark.timeout(180)
def test_a_table_that_is_gone_with_its_changelog_is_rebuilt_and_nothing_is_forwarded_again(rig: Rig, caller: Caller) -> None:
    def rebuild(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*REBUILD, *options], env=rig.system.environment, capture_output=True, text=True, check=False, timeout=60)

    first = caller.accepted()
    until(lambda: rebuild("--verify-only").returncode == 0, 30, "table and log being the same")
    refused = rebuild()
    assert refused.returncode == 1
    assert "stop `triggers process dedup`" in refused.stderr, refused.stderr

    second = caller.again_when_all_is_forgotten()
    lacking = rebuild("--verify-only")
    assert lacking.returncode == 1
    assert f"{first}: has no marker" in lacking.stderr
    forwarded = ends(rig.system.settings.kafka)
    until(lambda: rebuild().returncode == 0, 40, "the worker having left its group and the table being rebuilt", 1.0)
    assert rebuild("--verify-only").returncode == 0

    rig.start_process("dedup", PROCESSES["dedup"], {})
    assert caller.judged(second) == "conflict"
    assert ends(rig.system.settings.kafka) == forwarded
