"""From an empty shadow, or one that a killed run has begun, to one that goes on as the live tables do: each topic is loaded, and made whole
while the next one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from projections.finishing import finishing
from projections.loaders import loaders
from projections.log_reader import LogReader, Place, Range
from projections.shadow import Shadow
from runtime.settings import Settings

#: `(topic, records of a batch)`.
Counted = Callable[[str, int], None]


async def fill(settings: Settings, shadow: Shadow, reader: LogReader, ranges: Mapping[Place, Range], counted: Counted) -> None:
    """Load these ranges, the shadow's first records among them, and make the tables whole.

    Raises `RebuildError`, `LogError`, `Fenced`, `confluent_kafka.KafkaException`, `psycopg.Error`, `OSError`.
    """
    rebuild = settings.rebuild
    many = sum(part.end - part.begin for part in ranges.values()) >= rebuild.process_records_min
    processes = min(rebuild.processes, settings.kafka.partitions) if many else 1
    async with (
        loaders(settings, shadow, reader, processes) as loading,
        finishing(settings.postgres, shadow, rebuild.sessions) as finish,
    ):
        # One topic after the other: long runs of rows for the same tables.
        for fold in shadow.folds:
            of_topic = {place: part for place, part in ranges.items() if place[0] == fold.topic}
            await loading.load(fold, of_topic, partial(counted, fold.topic))
            finish.begin(fold)
        await finish.end()
