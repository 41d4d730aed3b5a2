"""`POST /events/batch` with 100 events a request, beside single events through the same process, and beside raw librdkafka producing the
same records (acks=all, idempotent). Afterwards every 201 has to be in the inbox once. Run: `make bench BENCH=batch`."""

from __future__ import annotations

import sys
import time

from confluent_kafka import Producer

from benchmarks import records
from benchmarks.load import Load
from benchmarks.results import Figure, middle, report
from benchmarks.rig import Rig, read_ids, rig
from runtime.kafka import producer_config
from schemas import codec, keys
from schemas.topics import EVENTS_DUPLICATES

ITEMS = 100
CONNECTIONS = 8
RAW_RECORDS = 100_000


def main(seconds: float, rounds: int) -> None:
    with rig() as bench:
        port, tenants = bench.start_api(), bench.tenants(records.ORGANIZATIONS)
        api_keys = [tenant.key for tenant in tenants]
        path = bench.folder / "ids"
        ids: list[str] = []
        batch: list[float] = []
        single: list[float] = []
        raw: list[float] = []
        for number in range(rounds + 1):  # the first warms
            found = bench.load(Load(port, api_keys, seconds, CONNECTIONS, batch=ITEMS, run=f"b{number}", ids_path=str(path)))
            ids += read_ids(path)
            one = bench.load(Load(port, api_keys, seconds, 32, run=f"s{number}", ids_path=str(path)))
            ids += read_ids(path)
            if number:
                batch.append(found.per_s)
                single.append(one.per_s)
                raw.append(raw_produce(bench))
                print(f"round {number}: batch {batch[-1]:,.0f}/s, single {single[-1]:,.0f}/s, librdkafka {raw[-1]:,.0f}/s", flush=True)
        bench.system.start("dedup", "project")
        bench.check_inbox(ids)
    figures = [
        Figure("accepted in batches", middle(batch), "events/s", "single events", middle(single), target=6),
        Figure("accepted beside librdkafka", middle(batch), "events/s", "raw produce", middle(raw), target=0.1),
    ]
    report("batch", figures, f"{len(ids):,} events, every 201 in the inbox once")


def raw_produce(bench: Rig) -> float:
    """Records a second, to a topic nobody in this run reads."""
    kafka = bench.system.settings.kafka
    made = [(keys.record_key(event.organization), codec.encode(event)) for event in records.events(RAW_RECORDS, records.organizations())]
    producer = Producer(producer_config(kafka, client_id="bench", linger_ms=5, delivery_timeout_s=60, gapless=False))
    producer.list_topics(EVENTS_DUPLICATES, 10)
    began_s = time.monotonic()
    for number, (key, value) in enumerate(made):
        producer.produce(EVENTS_DUPLICATES, value, key)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush(120)
    return RAW_RECORDS / (time.monotonic() - began_s)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
