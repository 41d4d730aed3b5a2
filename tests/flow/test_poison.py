"""Records that no process of ours would write, straight to Kafka: parked with their bytes and origin, and the next event goes on."""

from __future__ import annotations

import httpx
import pytest

from schemas import codec, ids, keys
from schemas.records import Record
from schemas.topics import (
    DELIVERIES_ATTEMPTS,
    DELIVERIES_REQUESTS,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    INBOX_ACKS,
    LIFECYCLE,
    declared,
    retry_topic,
)
from tests.flow.topics import read_topic, write_records
from triggers.provision import make_tenant
from triggers.system import System, until

GOOD = (ids.event_id(1, bytes(10)), ids.organization_id(1, bytes(10)))


def ingested(organization: str) -> bytes:
    return b'{"v":1,"id":"%b","organization":"%b","mode":"live","type":"t","received_at_ms":1,"fingerprint":"%b","payload":1}' % (
        GOOD[0].encode(),
        organization.encode(),
        b"0" * 64,
    )


def origin(record: Record) -> tuple[bytes | None, ...]:
    """Where a parked record stood, as far as it says. Other tests share the topic: their records may stand at the same offset of another
    partition, and may have no such headers."""
    headers = dict(record.headers)
    return tuple(headers.get(name) for name in ("rejected-topic", "rejected-partition", "rejected-offset"))


READ_TOPICS = [
    EVENTS_INGESTED, EVENTS_ACCEPTED, EVENTS_DUPLICATES, INBOX_ACKS, DELIVERIES_ATTEMPTS, DELIVERIES_REQUESTS, LIFECYCLE,
    retry_topic(0.5), retry_topic(2),
]  # fmt: skip


def test_every_topic_that_a_group_reads_is_poisoned_here(system: System) -> None:
    delays = system.settings.delivery.delays_s
    read = {topic.name for topic in declared(delays) if topic.groups}
    assert read - set(READ_TOPICS) <= {retry_topic(delay) for delay in delays}


@pytest.mark.parametrize("topic", READ_TOPICS)
def test_poison_is_parked_with_its_bytes_and_origin_and_holds_nothing_up(topic: str, system: System) -> None:
    tenant = make_tenant(system.settings, f"poison {topic}")
    restarts = {name: system.supervisor.restart_count(name) for name in ("dedup", "project", "delivery")}
    key = keys.record_key(tenant.organization)
    partition = keys.partition_of(key, system.settings.kafka.partitions)
    poison: list[tuple[bytes | None, bytes | None, int]] = [
        (key, None, partition),
        (None, b"no key", partition),
        (b"", b"", partition),
        (key, b"not json", partition),
        (key, b'{"v":2,"from":"the future"}', partition),
        (key, b'{"v":1}', partition),
        (key, b"[" * 50_000, partition),
        (key, b"\xff" * 900_000, partition),
        (key, ingested(GOOD[1]), partition),
    ]
    before = {origin(r) for r in read_topic(system.settings, EVENTS_REJECTED)}
    write_records(system.settings, topic, poison)
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=10) as client:
        event_id = client.post("/events", json={"type": "after.poison", "payload": 1}).json()["id"]
        until(lambda: client.get(f"/events/{event_id}").json().get("status") == "accepted", 30, "the next event", 0.2)

        def parked() -> list[bytes | None]:
            fresh = [r for r in read_topic(system.settings, EVENTS_REJECTED) if origin(r) not in before]
            return [r.value for r in fresh if dict(r.headers).get("rejected-topic") == topic.encode()]

        until(lambda: len(set(parked())) >= len({value for _, value, _ in poison}), 30, "all poison being parked", 0.5)
        assert set(parked()) == {value for _, value, _ in poison}
        assert [e["id"] for e in client.get("/inbox").json()["events"]] == [event_id]
    assert httpx.get(f"{system.url}/health/ready").status_code == 200
    assert {name: system.supervisor.restart_count(name) for name in restarts} == restarts


def test_an_event_in_another_partition_than_its_keys_is_parked(system: System) -> None:
    tenant = make_tenant(system.settings, "wrong partition")
    key = keys.record_key(tenant.organization)
    wrong = (keys.partition_of(key, system.settings.kafka.partitions) + 1) % system.settings.kafka.partitions
    value = ingested(tenant.organization)
    assert codec.ingested.decode(value).organization == tenant.organization
    write_records(system.settings, EVENTS_INGESTED, [(key, value, wrong)])

    def reasons() -> list[bytes | None]:
        return [dict(r.headers).get("rejected-reason") for r in read_topic(system.settings, EVENTS_REJECTED) if r.value == value]

    until(lambda: bool(reasons()), 30, "the record being parked", 0.5)
    assert reasons() == [b"wrong_partition"]
