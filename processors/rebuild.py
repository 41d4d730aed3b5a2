"""Before a dedup worker joins after a long absence: make sure the changelog knows every marker its first records need.

The changelog keeps 8 days. If the first record not committed is older than 7, markers of the 24 hours before it may be gone from the
changelog and from every folder. They are found again in `events.accepted`, which holds exactly the records that took a key, and written to
the changelog; recovery takes it from there. (Folding `events.ingested` again would have to know what held each key before its first
record, and so on back; the accepted records are those decisions already made.)

Any worker may do this for any partition, and twice changes nothing: in recovery the marker with the highest position wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from processors.dedup import Marker, encode_marker
from runtime.clock import Clock
from runtime.kafka import LIBRDKAFKA_LOGGER, client_config, producer_config
from runtime.lifecycle import die
from runtime.settings import Settings
from runtime.telemetry import log
from schemas import codec
from schemas.codec import CodecError
from schemas.events import SCHEMA_VERSION
from schemas.keys import table_key
from schemas.topics import DEDUP_APP, DEDUP_CHANGELOG, EVENTS_ACCEPTED, EVENTS_INGESTED

_REQUEST_TIMEOUT_S: Final = 30.0
_READ_TIMEOUT_S: Final = 10.0
_FLUSH_TIMEOUT_S: Final = 60.0


def refill_changelog(settings: Settings, clock: Clock) -> int:
    """Write markers that may be missing; returns how many. Nothing is read but two offsets a partition when the worker is up to date.

    Raises `confluent_kafka.KafkaException`.
    """
    count = 0
    with reader(settings) as consumer:
        places = [TopicPartition(EVENTS_INGESTED, number) for number in range(settings.kafka.partitions)]
        for place in consumer.committed(places, timeout=_REQUEST_TIMEOUT_S):
            if place.offset < 0:
                continue  # never worked on: nothing is known, nothing is missing
            first = next(read(consumer, TopicPartition(EVENTS_INGESTED, place.partition, place.offset)), None)
            if first is None or clock.now_ms() - first.timestamp()[1] <= settings.processor.rebuild_after_s * 1000:
                continue
            since_ms = first.timestamp()[1] - int(settings.ingest.idempotency_window_s * 1000)
            markers = accepted_markers(consumer, place.partition, since_ms, place.offset)
            write_markers(settings, place.partition, markers)
            count += len(markers)
            log.warning("dedup.rebuilt", partition=place.partition, markers=len(markers), first_uncommitted_ms=first.timestamp()[1])
    return count


@contextmanager
def reader(settings: Settings) -> Iterator[Consumer]:
    """A consumer that knows dedup's committed offsets and never joins its group."""
    consumer = Consumer(
        {
            **client_config(settings.kafka, "dedup-rebuild"),
            "group.id": DEDUP_APP,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        },
        logger=LIBRDKAFKA_LOGGER,
    )
    try:
        yield consumer
    finally:
        consumer.close()


def accepted_markers(consumer: Consumer, partition: int, since_ms: int, below: int) -> dict[bytes, Marker]:
    """Who holds each key, according to the accepted records since a time, as far as they come from below an ingested offset."""
    found = consumer.offsets_for_times([TopicPartition(EVENTS_ACCEPTED, partition, max(0, since_ms))], timeout=_REQUEST_TIMEOUT_S)[0]
    held: dict[bytes, Marker] = {}
    if found.offset < 0:
        return held
    for message in read(consumer, found):
        try:
            accepted = codec.accepted.decode(message.value())
        except CodecError:
            continue  # not written by dedup, so it took no key
        event, origin = accepted.event, accepted.ingested
        if event.dedup_key is None or origin.offset >= below:
            continue
        key = table_key(event.organization, event.mode, event.dedup_key)
        if key not in held or origin.offset > held[key].offset:
            held[key] = Marker(SCHEMA_VERSION, partition, origin.offset, origin.appended_at_ms, event.id, event.fingerprint)
    return held


def read(consumer: Consumer, begin: TopicPartition) -> Iterator[Message]:
    """Records from a position to the end of its partition."""
    consumer.assign([begin])
    while True:
        message = consumer.poll(_READ_TIMEOUT_S)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{begin.topic}[{begin.partition}] could not be read"))
        if (error := message.error()) is None:
            yield message
        elif error.code() == KafkaError._PARTITION_EOF:
            return
        else:
            raise KafkaException(error)


def write_markers(settings: Settings, partition: int, markers: Mapping[bytes, Marker]) -> None:
    """To the changelog, each confirmed; a failure ends the process."""
    producer = Producer(
        producer_config(settings.kafka, client_id="dedup-rebuild", linger_ms=5, delivery_timeout_s=_FLUSH_TIMEOUT_S, gapless=False),
        logger=LIBRDKAFKA_LOGGER,
    )

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            die(f"a marker could not be written to the changelog: {error}")

    for key, marker in markers.items():
        producer.produce(DEDUP_CHANGELOG, encode_marker(marker), key, partition, on_delivery=report, timestamp=marker.appended_at_ms)
        producer.poll(0)
    if left := producer.flush(_FLUSH_TIMEOUT_S):
        die(f"{left} markers were not confirmed within {_FLUSH_TIMEOUT_S:g} s")
