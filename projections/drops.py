"""What operators decided to do nothing about: read from `lifecycle`, so that lists leave it out also where Postgres is away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from projections.scan import Progress, scan
from projections.trail import At
from runtime.settings import Settings
from runtime.topics import admin, generation
from schemas import codec
from schemas.codec import CodecError
from schemas.ids import EndpointId, EventId, RoundId
from schemas.lifecycle import Dropped
from schemas.topics import DELIVERIES_DEAD, LIFECYCLE


def drops(settings: Settings, topic: str, partitions: Iterable[int], progress: Progress) -> dict[At, Dropped]:
    """Of records of `topic`, by place. The first decision stays. Raises as `projections.scan.scan`."""
    client = admin(settings.kafka)
    found: dict[At, Dropped] = {}
    here = generation(client)
    for partition, entry in _decisions(settings, partitions, progress):
        # A decision stands in the partition of its record.
        if (entry.topic, entry.generation, entry.partition) == (topic, here, partition):
            found.setdefault(At(topic, entry.partition, entry.offset), entry)
    return found


def dropped_letters(settings: Settings, partition: int, progress: Progress) -> dict[EndpointId, list[tuple[EventId, RoundId]]]:
    """Deliveries that were given up and that nothing is to be done about, by endpoint, also of letters that are gone by now: those that
    were gone when partitions were grown have a place in no generation since, and what is decided of their delivery holds.

    Raises as `projections.scan.scan`.
    """
    found: dict[EndpointId, list[tuple[EventId, RoundId]]] = {}
    for _, decision in _decisions(settings, [partition], progress):
        if decision.topic == DELIVERIES_DEAD and (letter := decision.letter) is not None:
            found.setdefault(letter.endpoint_id, []).append((letter.event_id, letter.round))
    return found


def _decisions(settings: Settings, partitions: Iterable[int], progress: Progress) -> Iterator[tuple[int, Dropped]]:
    """With the partition in which each stands."""
    for at, record in scan(settings, LIFECYCLE, partitions, None, progress):
        try:
            entry = codec.lifecycle.decode(record.value)
        except CodecError:
            continue  # of a later version, or not ours
        if isinstance(entry, Dropped):
            yield at.partition, entry
