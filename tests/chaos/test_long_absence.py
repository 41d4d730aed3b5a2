"""A dedup worker that was away longer than its changelog remembers must still know what it has seen."""

from __future__ import annotations

import shutil
import subprocess
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


@pytest.mark.verify
@pytest.mark.timeout(120)
def test_an_event_seen_before_the_absence_is_still_a_duplicate_when_table_and_changelog_are_gone(tmp_path: Path) -> None:
    with Rig(tmp_path).running() as rig:
        tenant = make_tenant(rig.system.settings, "absent")
        with httpx.Client(
            base_url=rig.system.url, headers={"X-API-Key": tenant.key, "Content-Type": "application/json"}, timeout=10
        ) as client:

            def status(event_id: str) -> str:
                found: str = client.get(f"/events/{event_id}").json()["status"]
                return found

            first = client.post("/events", content=BODY % 1).json()["id"]
            until(lambda: status(first) == "accepted", 30, "the first event")
            rig.system.supervisor.stop("dedup")
            # Redis forgets, so that only dedup can know; then everything that dedup keeps is taken away.
            rig.stack.redis.kill()
            rig.stack.redis.bring_up()
            second = client.post("/events", content=BODY % 2).json()["id"]
            assert second != first
            shutil.rmtree(Path(rig.system.environment["TRIGGERS_PROCESSOR__DATA_DIR"]) / "dedup-0")
            empty_changelog(rig.system.settings.kafka)
            rig.start_process("dedup", PROCESSES["dedup"], {"TRIGGERS_PROCESSOR__REBUILD_AFTER_S": "0.001"})
            until(lambda: status(second) != "pending", 30, "the second event being judged", 0.2)
            assert client.get(f"/events/{second}").json()["status"] == "conflict"
            assert [event["id"] for event in client.get("/inbox").json()["events"]] == [first]


@pytest.mark.verify
@pytest.mark.timeout(180)
def test_a_table_that_is_gone_with_its_changelog_is_rebuilt_and_nothing_is_forwarded_again(tmp_path: Path) -> None:
    with Rig(tmp_path).running() as rig:
        kafka, tenant = rig.system.settings.kafka, make_tenant(rig.system.settings, "rebuilt")

        def rebuild(*options: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*REBUILD, *options], env=rig.system.environment, capture_output=True, text=True, check=False, timeout=60)

        with httpx.Client(
            base_url=rig.system.url, headers={"X-API-Key": tenant.key, "Content-Type": "application/json"}, timeout=10
        ) as client:

            def status(event_id: str) -> str:
                found: str = client.get(f"/events/{event_id}").json()["status"]
                return found

            first = client.post("/events", content=BODY % 1).json()["id"]
            until(lambda: status(first) == "accepted", 30, "the first event")
            until(lambda: rebuild("--verify-only").returncode == 0, 30, "table and log being the same")
            refused = rebuild()
            assert refused.returncode == 1
            assert "stop `triggers process dedup`" in refused.stderr, refused.stderr

            rig.system.supervisor.stop("dedup")
            rig.stack.redis.kill()
            rig.stack.redis.bring_up()  # it forgets, so that only dedup can know
            second = client.post("/events", content=BODY % 2).json()["id"]
            shutil.rmtree(Path(rig.system.environment["TRIGGERS_PROCESSOR__DATA_DIR"]) / "dedup-0")
            empty_changelog(kafka)
            lacking = rebuild("--verify-only")
            assert lacking.returncode == 1
            assert f"{first}: has no marker" in lacking.stderr
            forwarded = ends(kafka)
            until(lambda: rebuild().returncode == 0, 40, "the worker having left its group and the table being rebuilt", 1.0)
            assert rebuild("--verify-only").returncode == 0

            rig.start_process("dedup", PROCESSES["dedup"], {})
            until(lambda: status(second) != "pending", 30, "the second event being judged", 0.2)
            assert status(second) == "conflict"
            assert ends(kafka) == forwarded
