"""Going through the partitions of a topic once, from a time on: for commands that list records. Bounded in records and in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final

from projections.log_reader import LogError, LogReader, Range, bounds, since
from projections.trail import At
from runtime.settings import Settings
from schemas.records import Record

_BATCH_RECORDS_MAX: Final = 2_000
_AHEAD_KBYTES: Final = 16_384

#: `(topic, records read, records of the range)`.
Progress = Callable[[str, int, int], None]


def scan(
    settings: Settings, topic: str, partitions: Iterable[int], since_ms: int | None, progress: Progress
) -> Iterator[tuple[At, Record]]:
    """Every record, partition by partition in order, from the first that is not older than `since_ms` to the end as it is now.

    Raises `LogError` where the limit of records comes first, and as `LogReader.read`; `confluent_kafka.KafkaException`.
    """
    places = [(topic, number) for number in partitions]
    ranges = bounds(settings.kafka, places) if since_ms is None else since(settings.kafka, dict.fromkeys(places, since_ms))
    total, most, read = sum(part.end - part.begin for part in ranges.values()), settings.operating.read_records_max, 0
    if total > most:
        raise LogError(
            f"{topic} holds {total:,} records in this range, TRIGGERS_OPERATING__READ_RECORDS_MAX is {most:,}: narrow it with --since or "
            "--organization, or raise that"
        )
    with closing(_reader(settings)) as reader:
        for place in places:
            for batch in reader.read({place: ranges[place]}):
                for chunk in batch:
                    for record in chunk.records:
                        yield At(*place, record.offset), record
                    read += len(chunk.records)
                progress(topic, read, total)


def read_one(settings: Settings, at: At) -> Record:
    """One record. Raises `LogError` where the topic does not hold it, `ValueError` for a partition that is not there."""
    if at.partition >= settings.kafka.partitions:
        raise ValueError(f"there is no partition {at.partition}: topics have {settings.kafka.partitions}")
    place = (at.topic, at.partition)
    begin, end = bounds(settings.kafka, [place])[place]
    if not begin <= at.offset < end:
        raise LogError(f"{at.topic}[{at.partition}] holds offsets {begin} to {end - 1}: {at.offset} is not there (any more)")
    with closing(_reader(settings)) as reader:
        for batch in reader.read({place: Range(at.offset, at.offset + 1)}):
            return batch[0].records[0]
    raise LogError(f"{at.topic}[{at.partition}] gave no record at {at.offset}")


def _reader(settings: Settings) -> LogReader:
    return LogReader(
        settings.kafka, batch_records_max=_BATCH_RECORDS_MAX, stall_timeout_s=settings.operating.stall_timeout_s, headers=True,
        ahead_kbytes=_AHEAD_KBYTES,
    )  # fmt: skip
