"""Records for the benchmarks of the stages behind the API, as those before them would have written them, and how far a topic is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec import Raw

from runtime.settings import KafkaSettings
from schemas import codec, ids, keys
from schemas.events import Ingested
from schemas.ids import OrganizationId
from schemas.topics import EVENTS_ACCEPTED, EVENTS_INGESTED

#: 2026-11-24, as Unix ms.
BEGAN_MS = 1_795_000_000_000
ORGANIZATIONS = 50


def organizations(count: int = ORGANIZATIONS) -> list[OrganizationId]:
    return [ids.organization_id(BEGAN_MS, number.to_bytes(10, "big")) for number in range(count)]


def events(
    count: int, owners: list[OrganizationId], *, payload_bytes: int = 200, duplicates: float = 0.0, first: int = 0
) -> Iterator[Ingested]:
    """`duplicates`: the share of events whose key an earlier one has. `first`: how many of these events were made before."""
    payload = Raw(b'{"note":"%b"}' % (b"x" * payload_bytes))
    every = round(1 / duplicates) if duplicates else 0
    for number in range(first, first + count):
        key = number - len(owners) if every and number >= len(owners) and number % every == 0 else number
        yield Ingested(
            v=1, id=ids.event_id(BEGAN_MS + number, number.to_bytes(10, "big")), organization=owners[number % len(owners)], mode="live",
            type="order.paid", received_at_ms=BEGAN_MS + number, fingerprint="f" * 64, dedup_key=f"k:{key}", payload=payload,
        )  # fmt: skip


def produce(kafka: KafkaSettings, topic: str, values: Iterator[tuple[bytes, bytes]]) -> int:
    """(key, value) pairs to a topic, placed by murmur2; how many."""
    producer = Producer({
        "bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True, "partitioner": "murmur2", "linger.ms": 20,
        "queue.buffering.max.messages": 500_000,
        "queue.buffering.max.kbytes": 1_048_576,
    })  # fmt: skip
    count = 0
    for key, value in values:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1_000 == 0:
            producer.poll(0)
    producer.flush(300)
    return count


def ingested(kafka: KafkaSettings, made: Iterator[Ingested]) -> int:
    return produce(kafka, EVENTS_INGESTED, ((keys.record_key(event.organization), codec.encode(event)) for event in made))


def accepted(kafka: KafkaSettings, made: Iterator[Ingested]) -> int:
    """Accepted records whose ingested offsets grow in each partition, as dedup leaves them."""
    offsets = [0] * kafka.partitions

    def values() -> Iterator[tuple[bytes, bytes]]:
        for event in made:
            key = keys.record_key(event.organization)
            partition = keys.partition_of(key, kafka.partitions)
            offsets[partition] += 1
            yield key, codec.encode_accepted(msgspec.json.encode(event), offsets[partition], event.received_at_ms)

    return produce(kafka, EVENTS_ACCEPTED, values())


def end_of(kafka: KafkaSettings, topic: str) -> Callable[[], int]:
    """A function that says how many records a topic holds."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bench-ends"})

    def ends() -> int:
        places = [TopicPartition(topic, number) for number in range(kafka.partitions)]
        return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)

    return ends
