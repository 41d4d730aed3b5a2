"""How fast the dedup table comes back from its changelog: a new worker with an empty folder, beside stock Faust's own recovery and
beside raw consumption of the same records. The clock runs from the start of the process to its first deduplicated event; what a start
takes without a table is taken off. Run: `make bench BENCH=recovery` (`python -m benchmarks.recovery [markers] [markers of stock]`)."""

from __future__ import annotations

import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from benchmarks import records
from benchmarks.dedup import start
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, rig
from processors.dedup import Marker, encode_marker
from runtime.topics import admin
from schemas import ids, keys
from schemas.topics import DEDUP_CHANGELOG, EVENTS_ACCEPTED
from triggers.system import until

_TIMEOUT_S = 900.0
_STOCK_CHANGELOG = "stock-stock-seen-changelog"


def main(count: int, stock_count: int) -> None:
    ours_s, raw_s = measured(count, stock=False)
    stock_s, _ = measured(stock_count, stock=True)
    figures = [
        Figure("recovered", count / ours_s, "markers/s", "stock Faust", stock_count / stock_s, target=5),
        Figure("beside raw consume", count / ours_s, "markers/s", "librdkafka", count / raw_s),
        Figure("whole table", ours_s, "s"),
    ]
    report("recovery", figures, f"{count:,} markers ours, {stock_count:,} stock")


def measured(count: int, *, stock: bool) -> tuple[float, float]:
    """Seconds that recovery takes, and that raw consumption of the same records takes."""
    with rig() as bench:
        begun_s = first_event_s(bench, stock, "nothing to recover")
    with rig() as bench:
        raw_s = fill(bench, _STOCK_CHANGELOG if stock else DEDUP_CHANGELOG, count)
        took_s = first_event_s(bench, stock, f"{count:,} markers")
    return took_s - begun_s, raw_s


def first_event_s(bench: Rig, stock: bool, what: str) -> float:
    kafka = bench.system.settings.kafka
    accepted = records.end_of(kafka, EVENTS_ACCEPTED)
    records.ingested(kafka, records.events(1, records.organizations()))
    began_s = time.monotonic()
    start(bench, stock=stock)
    until(lambda: accepted() > 0, _TIMEOUT_S, "the first accepted record", 0.02)
    took_s = time.monotonic() - began_s
    assert bench.system.supervisor.restart_count("dedup") == 0
    print(f"{'stock Faust' if stock else 'ours'}, {what}: {took_s:.1f} s to the first event", flush=True)
    return took_s


def fill(bench: Rig, topic: str, count: int) -> float:
    """Write markers; how many seconds it takes to read them."""
    kafka = bench.system.settings.kafka
    if topic != DEDUP_CHANGELOG:
        client = admin(kafka)
        client.create_topics([NewTopic(topic, num_partitions=kafka.partitions, replication_factor=1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    organization = ids.organization_id(1, bytes(10))
    now_ms = time.time_ns() // 1_000_000
    for number in range(count):
        marker = Marker(1, number % kafka.partitions, number, now_ms, ids.event_id(number, bytes(10)), "f" * 64)
        producer.produce(topic, encode_marker(marker), keys.table_key(organization, "live", f"k:{number}"), number % kafka.partitions)
        if number % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bench"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(kafka.partitions)])
    began_s, seen = time.monotonic(), 0
    while seen < count:
        seen += len(consumer.consume(5_000, 0.5))
    consumer.close()
    return time.monotonic() - began_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
