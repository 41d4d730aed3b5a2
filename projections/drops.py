"""What operators decided to do nothing about: read from `lifecycle`, so that lists leave it out also where Postgres is away."""

from __future__ import annotations

from collections.abc import Iterable

from projections.scan import Progress, scan
from projections.trail import At
from runtime.settings import Settings
from runtime.topics import admin, generation
from schemas import codec
from schemas.codec import CodecError
from schemas.lifecycle import Dropped
from schemas.topics import LIFECYCLE


def drops(settings: Settings, topic: str, partitions: Iterable[int], progress: Progress) -> dict[At, Dropped]:
    """Of records of `topic`, by place. The first decision stays. Raises as `projections.scan.scan`."""
    client = admin(settings.kafka)
    found: dict[At, Dropped] = {}
    here = generation(client)
    for at, record in scan(settings, LIFECYCLE, partitions, None, progress):
        try:
            entry = codec.lifecycle.decode(record.value)
        except CodecError:
            continue  # of a later version, or not ours
        # A decision stands in the partition of its record.
        if isinstance(entry, Dropped) and (entry.topic, entry.generation, entry.partition) == (topic, here, at.partition):
            found.setdefault(At(topic, entry.partition, entry.offset), entry)
    return found
