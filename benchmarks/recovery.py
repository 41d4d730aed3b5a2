"""How fast the dedup table comes back from its changelog: a new worker with an empty folder, against raw consumption of the same records.

Run: `.venv/bin/python -m benchmarks.recovery [markers]`. Servers and worker run on this machine; the ratio counts, not the absolute time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import httpx
from confluent_kafka import Consumer, Producer, TopicPartition

from processors.dedup import Marker, encode_marker
from schemas import ids, keys
from schemas.topics import DEDUP_CHANGELOG
from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack
from triggers.system import PROCESSES, System, until


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), progress=lambda _: None)
        stack.start()
        try:
            port = free_ports(1)[0]
            environment = {**os.environ, **stack.settings_env(), "TRIGGERS_TELEMETRY__METRICS_PORT": str(port)}
            system = System(environment, Path(folder) / "logs")
            system.prepare()
            kafka = system.settings.kafka
            fill(kafka.bootstrap_servers, kafka.partitions, count)
            raw_s = consume(kafka.bootstrap_servers, kafka.partitions, count)
            began_s = time.monotonic()
            system.start_process("dedup", PROCESSES["dedup"])
            first_s = 0.0

            def recovered() -> float:
                try:
                    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2).text
                except httpx.TransportError:
                    return 0.0
                return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("triggers_recovered_markers_total "))

            until(lambda: recovered() > 0, 60, "recovery beginning", 0.02)
            first_s = time.monotonic()
            begun = recovered()
            until(lambda: recovered() >= count, 600, "recovery", 0.05)
            took_s = time.monotonic() - first_s
            system.stop()
        finally:
            stack.destroy()
    rate = (count - begun) / took_s
    print(
        f"markers {count}: recovery {rate:,.0f}/s, raw consume {count / raw_s:,.0f}/s, ratio {rate * raw_s / count:.2f}; "
        f"whole, from the start of the process: {time.monotonic() - began_s:.1f} s"
    )


def fill(servers: str, partitions: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    organization = ids.organization_id(1, bytes(10))
    for number in range(count):
        marker = Marker(1, number % partitions, number, 1_795_000_000_000, ids.event_id(number, bytes(10)), "f" * 64)
        producer.produce(DEDUP_CHANGELOG, encode_marker(marker), keys.table_key(organization, "live", f"k:{number}"), number % partitions)
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush(120)


def consume(servers: str, partitions: int, count: int) -> float:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench"})
    consumer.assign([TopicPartition(DEDUP_CHANGELOG, number, 0) for number in range(partitions)])
    began_s, seen = time.monotonic(), 0
    while seen < count:
        seen += len(consumer.consume(5_000, 0.5))
    consumer.close()
    return time.monotonic() - began_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
