"""Faust as it comes, doing dedup's work: a table read and write and a send an event, on stock transport. For speed alone: it loses records
in the ways docs/adr/0002 lists. `python -m benchmarks.comparators.stock_faust DATA_DIR`, with the settings in the environment."""

from __future__ import annotations

import sys
from typing import Any

import faust

from processors.dedup import decode_marker, encode_marker, marker_of
from runtime.settings import Settings
from schemas import codec
from schemas.keys import table_key
from schemas.topics import EVENTS_ACCEPTED, EVENTS_INGESTED


def app_of(settings: Settings, folder: str) -> Any:
    app: Any = faust.App(
        "stock", broker=[f"kafka://{server}" for server in settings.kafka.bootstrap_servers.split(",")], autodiscover=False, datadir=folder,
        store="rocksdb://", value_serializer="raw", key_serializer="raw", cython_optimizations=True, web_enabled=False,
        topic_partitions=settings.kafka.partitions, topic_disable_leader=True, table_standby_replicas=0, broker_max_poll_records=2_000,
        topic_replication_factor=1, consumer_auto_offset_reset="earliest",
    )  # fmt: skip
    source = app.topic(EVENTS_INGESTED, key_type=bytes, value_type=bytes, value_serializer="raw")
    target = app.topic(EVENTS_ACCEPTED, key_type=bytes, value_type=bytes, value_serializer="raw")
    seen = app.Table("stock-seen", key_type=bytes, value_type=bytes, partitions=settings.kafka.partitions, options={"driver": "rocksdict"})

    async def dedup(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            read = codec.ingested.decode(event.value)
            key = table_key(read.organization, read.mode, read.dedup_key or "")
            held = seen.get(key)
            mine = marker_of(read, message.partition, message.offset, int(message.timestamp * 1000))
            if held is not None and decode_marker(held) != mine:
                continue
            seen[key] = encode_marker(mine)
            await target.send(key=event.key, value=codec.encode_accepted(event.value, message.offset, mine.appended_at_ms))

    app.agent(source, name="stock", concurrency=1)(dedup)
    return app


if __name__ == "__main__":
    faust.Worker(app_of(Settings(), sys.argv[1]), loglevel="WARN").execute_from_commandline()
