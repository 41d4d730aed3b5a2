"""A dedup worker that was away longer than its changelog remembers must still know what it has seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from confluent_kafka import TopicPartition

from runtime.topics import admin
from schemas.topics import DEDUP_CHANGELOG
from tests.chaos.rig import Rig
from triggers.provision import make_tenant
from triggers.system import PROCESSES, until

BODY = b'{"type":"a.b","idempotency_key":"k","payload":%d}'


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
            kafka = rig.system.settings.kafka
            operator = admin(kafka)
            emptied = operator.delete_records([TopicPartition(DEDUP_CHANGELOG, number, -1) for number in range(kafka.partitions)])
            for answer in emptied.values():
                answer.result(20)
            rig.start_process("dedup", PROCESSES["dedup"], {"TRIGGERS_PROCESSOR__REBUILD_AFTER_S": "0.001"})
            until(lambda: status(second) != "pending", 30, "the second event being judged", 0.2)
            assert client.get(f"/events/{second}").json()["status"] == "conflict"
            assert [event["id"] for event in client.get("/inbox").json()["events"]] == [first]
