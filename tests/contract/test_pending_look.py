"""A look at the end of a real log: what it finds, what is not there, and what it cannot know."""

from __future__ import annotations

import os

import pytest
from confluent_kafka import KafkaException, Producer
from msgspec import Raw

from projections import pending
from projections.pending import PendingLook
from projections.queries import Owner
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas import codec, ids
from schemas.codec import (
    HEADER_EVENT_ID,
    HEADER_REJECTED_DETAIL,
    HEADER_REJECTED_OFFSET,
    HEADER_REJECTED_PARTITION,
    HEADER_REJECTED_REASON,
    HEADER_REJECTED_TOPIC,
)
from schemas.events import SCHEMA_VERSION, Ingested
from schemas.ids import EventId, OrganizationId
from schemas.keys import partition_of, record_key
from schemas.topics import EVENTS_INGESTED, EVENTS_REJECTED, LIFECYCLE

#: As the system's own records there have them, of an offset that no other test's record has: they share the topic.
PARKED: list[tuple[str, str | bytes | None]] = [
    (HEADER_REJECTED_TOPIC, LIFECYCLE.encode()), (HEADER_REJECTED_PARTITION, b"0"), (HEADER_REJECTED_OFFSET, b"999999999"),
    (HEADER_REJECTED_REASON, b"malformed"), (HEADER_REJECTED_DETAIL, b"made by a test"),
]  # fmt: skip


def produce(settings: Settings, organization: OrganizationId, count: int) -> list[EventId]:
    made = [ids.event_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)) for _ in range(count)]
    key = record_key(organization)
    partition = partition_of(key, settings.kafka.partitions)
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(
        EVENTS_REJECTED, b"{}", key, partition, headers=PARKED
    )  # is read as well: once this is taken, so are questions about a new topic
    for event_id in made:
        event = Ingested(
            v=SCHEMA_VERSION, id=event_id, organization=organization, mode="live", type="order.paid", received_at_ms=SYSTEM.now_ms(),
            fingerprint="0" * 64, payload=Raw(b"{}"),
        )  # fmt: skip
        headers: list[tuple[str, str | bytes | None]] = [(HEADER_EVENT_ID, event_id.encode())]
        producer.produce(EVENTS_INGESTED, codec.encode(event), key, partition, headers=headers)
    assert producer.flush(20) == 0
    return made


async def test_an_event_behind_more_records_than_are_looked_at_is_not_called_unknown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told that an event is not in the log gives its idempotency key to another one."""
    organization = ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES))
    last = produce(settings, organization, 5)[-1]
    nowhere = ids.event_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES))
    look, owner = PendingLook(settings.kafka), Owner(organization, "live")
    assert await look.find(owner, last, -1) == "pending"
    assert await look.find(owner, nowhere, -1) is None
    assert await look.find(Owner(organization, "test"), last, -1) is None
    monkeypatch.setattr(pending, "_RECORDS_MAX", 3)
    with pytest.raises(KafkaException):
        await look.find(owner, last, -1)
