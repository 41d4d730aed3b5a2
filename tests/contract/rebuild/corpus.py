"""A log to rebuild from, produced straight to the topics: organizations in both modes with duplicates, acks, failures, retries, dead ends,
crash copies, and records that cannot be read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from confluent_kafka import Producer
from msgspec import Raw

from runtime.settings import Settings
from schemas import codec, ids, keys
from schemas.deliveries import Attempted, Dead, Planned, Requested, Retry
from schemas.events import MODES, Ack, Duplicate, Ingested, Origin
from schemas.ids import EndpointId, EventId, OrganizationId
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_DUPLICATES, INBOX_ACKS

ENDPOINTS = [ids.endpoint_id(number, bytes(10)) for number in (1, 2)]


class Corpus:
    """Produces to one Kafka. The same seed gives the same records; what comes later continues what was there."""

    def __init__(self, settings: Settings, *, organizations: int, seed: int = 1) -> None:
        self._partitions = settings.kafka.partitions
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 20, "partitioner": "murmur2",
                "queue.buffering.max.messages": 1_000_000, "enable.idempotence": True,
            }
        )  # fmt: skip
        self._random = random.Random(seed)
        self.organizations = [ids.organization_id(number + 1, bytes(10)) for number in range(organizations)]
        self._ingested: Counter[int] = Counter()
        self._accepted: Counter[int] = Counter()
        self.count = 0

    def produce(self, events: int) -> None:
        """`events` more, and what becomes of them."""
        chosen = self._random
        for _ in range(events):
            organization = chosen.choice(self.organizations)
            event = self._event(organization)
            partition, copies = self._partition(organization), chosen.choices((1, 2), (97, 3))[0]
            value = codec.encode_accepted(codec.encode(event), self._ingested[partition], 1_700_000_000_000 + self.count)
            self._ingested[partition] += 1
            for _ in range(copies):  # the second is what a crash of dedup leaves behind
                self._send(EVENTS_ACCEPTED, organization, value)
            self._lose(event, partition)
            self._deliver(event)
            if chosen.random() < 0.4:
                self.ack(event, [event.id] if chosen.random() < 0.9 else [event.id, event.id])
            if chosen.random() < 0.03:
                self.ack(event, [event.id])  # once more: it changes nothing
            if self.count % 10_000 == 0:
                self._producer.poll(0)
        organization = self.organizations[0]
        self._send(EVENTS_ACCEPTED, organization, b"poison")
        self._send(INBOX_ACKS, organization, b'{"v":99}')
        self._send(DELIVERIES_ATTEMPTS, organization, None)
        assert self._producer.flush(120) == 0

    def accept_twice(self) -> EventId:
        """One more event, and later a second accepted record of it, as two ingested ones of the same id have."""
        organization = self.organizations[0]
        event, partition = self._event(organization), self._partition(organization)
        for _ in range(2):
            value = codec.encode_accepted(codec.encode(event), self._ingested[partition], 1_700_000_000_000 + self.count)
            self._ingested[partition] += 1
            self._send(EVENTS_ACCEPTED, organization, value)
        assert self._producer.flush(120) == 0
        return event.id

    def ack(self, event: Ingested, event_ids: Sequence[EventId]) -> None:
        ack = Ack(v=1, organization=event.organization, mode=event.mode, ids=list(event_ids))
        self._send(INBOX_ACKS, event.organization, codec.encode(ack))

    def _event(self, organization: OrganizationId) -> Ingested:
        self.count += 1
        chosen, number = self._random, self.count
        mode = chosen.choices(MODES, (9, 1))[0]
        base64 = number % 50 == 0
        payload = b'"AAEC"' if base64 else msgspec.json.encode({"order": number, "note": "é" * chosen.randrange(80)})
        return Ingested(
            v=1, id=ids.event_id(1_700_000_000_000 + number, chosen.randbytes(10)), organization=organization, mode=mode,
            type=chosen.choice(("order.paid", "order.sent", "user.made")), received_at_ms=1_700_000_000_000 + number,
            fingerprint=keys.fingerprint("t", None, payload), payload=Raw(payload), base64=base64,
            subject=None if number % 3 else f"order/{number}", occurred_at="2026-11-24T02:31:23Z" if number % 2 else None,
            cloudevent={"source": "/shop", "id": str(number)} if number % 7 == 0 else None,
        )  # fmt: skip

    def _lose(self, event: Ingested, partition: int) -> None:
        if self._random.random() >= 0.08:
            return
        lost = Duplicate(
            v=1, id=ids.event_id(1_700_000_000_000 + self.count, self._random.randbytes(10)), organization=event.organization,
            mode=event.mode, type=event.type, original_id=event.id, kind=self._random.choice(("duplicate", "conflict")),
            ingested=Origin(self._ingested[partition], 1_700_000_000_000 + self.count),
        )  # fmt: skip
        self._ingested[partition] += 1
        for _ in range(self._random.choices((1, 2), (9, 1))[0]):
            self._send(EVENTS_DUPLICATES, event.organization, codec.encode(lost))

    def _deliver(self, event: Ingested) -> None:
        chosen = self._random
        endpoints = chosen.choice(([], ENDPOINTS[:1], ENDPOINTS))
        plans = [endpoints] if endpoints else []
        if chosen.random() < 0.02:  # planned again with other endpoints, as after a lost answer: the first plan stays
            plans.append(ENDPOINTS)
        if chosen.random() < 0.02:
            plans.insert(0, [])
        for planned in plans:
            plan = Planned(
                v=1, event_id=event.id, organization=event.organization, mode=event.mode, accepted_offset=self.count, endpoint_ids=planned
            )
            self._send(DELIVERIES_ATTEMPTS, event.organization, codec.encode(plan))
        for endpoint in endpoints:
            tries = chosen.choices((1, 2, 3), (8, 1, 1))[0]
            for attempt in range(1, tries + 1):
                done = attempt == tries and chosen.random() < 0.9
                following = None if done else Dead(reason="exhausted") if attempt == tries else Retry(attempt=attempt + 1, not_before_ms=5)
                made = Attempted(
                    v=1, event_id=event.id, organization=event.organization, mode=event.mode, endpoint_id=endpoint, attempt=attempt,
                    outcome="delivered" if done else "failed", started_at_ms=self.count, duration_ms=chosen.randrange(100), worker="w",
                    status=204 if done else 500, error=None if done else "status", response=None if done else "bm8=", next=following,
                )  # fmt: skip
                for _ in range(chosen.choices((1, 2), (98, 2))[0]):
                    self._send(DELIVERIES_ATTEMPTS, event.organization, codec.encode(made))
        if chosen.random() < 0.05:
            self._deliver_again(event, chosen.choice(ENDPOINTS))

    def _deliver_again(self, event: Ingested, endpoint: EndpointId) -> None:
        """A round that was asked for, also of an endpoint that was not planned; its records twice, as after a lost answer."""
        common: dict[str, Any] = {
            "v": 1, "event_id": event.id, "organization": event.organization, "mode": event.mode, "endpoint_id": endpoint,
            "round": ids.round_id(1_700_000_000_000 + self.count, bytes(10)), "cause": self._random.choice(("retry", "recover", "replay")),
        }  # fmt: skip
        made = Attempted(attempt=1, outcome="delivered", started_at_ms=self.count, duration_ms=3, worker="w", status=200, **common)
        for record in (Requested(**common), Requested(**common), made, made):
            self._send(DELIVERIES_ATTEMPTS, event.organization, codec.encode(record))

    def _partition(self, organization: OrganizationId) -> int:
        return keys.partition_of(keys.record_key(organization), self._partitions)

    def _send(self, topic: str, organization: OrganizationId, value: bytes | None) -> None:
        self._producer.produce(topic, value, keys.record_key(organization))
