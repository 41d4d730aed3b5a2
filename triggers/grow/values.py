"""What records say about places of others, said of where those are now. Pure.

Values are edited as JSON whose other members stay byte for byte, so fields of a later version pass through. A value that cannot be read is
left as it is: whoever reads it parks it, before as after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from delivery.journal import Checkpoint
from processors.dedup import Marker
from schemas import codec
from schemas.codec import HEADER_REJECTED_OFFSET, HEADER_REJECTED_PARTITION, HEADER_REJECTED_TOPIC, CodecError
from schemas.deliveries import FifoPosition, Planned, Replay
from schemas.events import First, Origin
from schemas.ids import OrganizationId
from schemas.keys import partition_of, record_key
from schemas.lifecycle import Dropped
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_INGESTED
from triggers.grow.places import Place, Places

Headers = Sequence[tuple[str, bytes | None]]
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotMoved(ValueError):
    """A record names one that is not in the log: nothing can be said of where that is. The text names both."""


class Move(NamedTuple):
    """From `old` to `new` partitions, out of topic generation `generation`. `topics`: where the records of each went; `ends`: where each
    new partition of a topic ends."""

    generation: int
    old: int
    new: int
    topics: Mapping[str, Places]
    ends: Mapping[str, Mapping[int, int]]

    def exact(self, topic: str, old: Place) -> Place:
        """Raises `NotMoved`."""
        found = self.topics[topic].of(old)
        if found is None:
            raise NotMoved(f"a record names {topic}[{old.partition}]@{old.offset}, which is not in the log")
        return found

    def origin(self, organization: OrganizationId, old: Place) -> int:
        """Offset of the ingested record that one of `organization` in the same partition names. Raises `NotMoved` for another's, too."""
        found = self.exact(EVENTS_INGESTED, old)
        if found.partition != self.sides(organization)[1]:
            raise NotMoved(
                f"a record of {organization} names {EVENTS_INGESTED}[{old.partition}]@{old.offset}, which is another organization's"
            )
        return found.offset

    def not_below(self, topic: str, organization: OrganizationId, offset: int) -> int:
        """The bound from which on the records of an organization are those that were from `offset` on."""
        source, target = self.sides(organization)
        found = self.topics[topic].at_or_after(Place(source, offset), target)
        return self.ends[topic].get(target, 0) if found is None else found

    def not_above(self, topic: str, organization: OrganizationId, offset: int) -> int:
        """The bound up to which the records of an organization are those that were up to `offset`. -1: none."""
        source, target = self.sides(organization)
        return self.topics[topic].at_or_before(Place(source, offset), target)

    def sides(self, organization: OrganizationId) -> tuple[int, int]:
        """Its old and its new partition."""
        key = record_key(organization)
        return partition_of(key, self.old), partition_of(key, self.new)


def accepted(move: Move, value: bytes | None, old: Place) -> bytes | None:
    """Of the record that was at `old`. Raises `NotMoved`."""
    try:
        record = codec.accepted.decode(value)
    except CodecError:
        return value
    origin = move.origin(record.event.organization, Place(old.partition, record.ingested.offset))
    first = record.first or First(
        generation=move.generation, partition=old.partition, offset=old.offset, ingested_offset=record.ingested.offset
    )
    return _edited(value, ingested=Origin(origin, record.ingested.appended_at_ms), first=first)


def duplicate(move: Move, value: bytes | None, old: Place) -> bytes | None:
    """Raises `NotMoved`."""
    try:
        record = codec.duplicate.decode(value)
    except CodecError:
        return value
    origin = move.origin(record.organization, Place(old.partition, record.ingested.offset))
    return _edited(value, ingested=Origin(origin, record.ingested.appended_at_ms))


def journal(move: Move, value: bytes | None) -> bytes | None:
    """Raises `NotMoved`."""
    try:
        record = codec.journal.decode(value)
    except CodecError:
        return value
    if not isinstance(record, Planned):
        return value
    new = move.not_above(EVENTS_ACCEPTED, record.organization, record.accepted_offset)
    if new < 0:
        raise NotMoved(f"the plan of {record.event_id} names {EVENTS_ACCEPTED}@{record.accepted_offset}, which is not in the log")
    return _edited(value, accepted_offset=new)


def request(move: Move, value: bytes | None) -> bytes | None:
    try:
        record = codec.request.decode(value)
    except CodecError:
        return value
    if not isinstance(record, Replay):
        return value
    whose = record.organization
    return _edited(
        value,
        next_offset=move.not_below(EVENTS_ACCEPTED, whose, record.next_offset),
        until_offset=move.not_below(EVENTS_ACCEPTED, whose, record.until_offset),
        ingested_high=move.not_above(EVENTS_INGESTED, whose, record.ingested_high),
    )


def fifo(move: Move, position: FifoPosition) -> FifoPosition:
    """Of plans below the bound nothing is left; of events up to the other nothing."""
    return msgspec.structs.replace(
        position,
        journal_offset=move.not_below(DELIVERIES_ATTEMPTS, position.organization, position.journal_offset),
        accepted_offset=move.not_above(EVENTS_ACCEPTED, position.organization, position.accepted_offset),
    )


def dropped(move: Move, value: bytes | None, record: Dropped) -> tuple[int, bytes] | None:
    """Partition and value of `record`, which is what `value` says. None: what it is about is not in the log any more, so there is nothing
    to leave out of a list."""
    old = Place(record.partition, record.offset)
    places = move.topics.get(record.topic)
    found = None if places is None or record.generation != move.generation else places.of(old)
    if found is None:
        return None
    return found.partition, _edited(value, generation=move.generation + 1, partition=found.partition, offset=found.offset)


def marker(move: Move, key: bytes, held: Marker) -> Marker | None:
    """Of the table key `key`. None: it holds its key for no record of the log."""
    organization = OrganizationId(key.partition(b"\n")[0].decode())
    source, target = move.sides(organization)
    places = move.topics[EVENTS_INGESTED]
    old = Place(held.partition, held.offset)
    if held.partition != source or places.of(old) is None:
        return None
    new = places.at_or_before(old, target)
    return Marker(held.v, target, new, held.appended_at_ms, held.event_id, held.fingerprint)


def rejected(move: Move, headers: Headers) -> list[tuple[str, bytes | None]]:
    """Where the record was that could not be read. What retention has taken is not named any more."""
    found = {name: value or b"" for name, value in headers}
    partition, offset = found.get(HEADER_REJECTED_PARTITION, b""), found.get(HEADER_REJECTED_OFFSET, b"")
    places = move.topics.get(found.get(HEADER_REJECTED_TOPIC, b"").decode(errors="replace"))
    if places is None or not (partition.isdigit() and offset.isdigit()):
        return list(headers)
    new = places.of(Place(int(partition), int(offset)))
    put: dict[str, bytes | None] = {
        HEADER_REJECTED_PARTITION: None if new is None else b"%d" % new.partition,
        HEADER_REJECTED_OFFSET: None if new is None else b"%d" % new.offset,
    }
    return [(name, put.get(name, value)) for name, value in headers]


def checkpoint(move: Move, olds: Mapping[int, Checkpoint], target: int) -> Checkpoint:
    """Of the new partition `target`: from the first place on that any old partition's checkpoint still needs there.

    Delivery has read `events.accepted` to its end, so the highest ingested offset is that of the last record.
    """
    high = max((move.topics[EVENTS_INGESTED].at_or_before(Place(number, old.h), target) for number, old in olds.items()), default=-1)
    needed: dict[str, int] = {}
    for topic, places in move.topics.items():
        if all(topic in old.t for old in olds.values()):
            found = [places.at_or_after(Place(number, old.t[topic]), target) for number, old in olds.items()]
            needed[topic] = min((one for one in found if one is not None), default=move.ends[topic].get(target, 0))
    return Checkpoint(h=high, t=needed)


def _edited(value: bytes | None, **changes: Any) -> bytes:
    """With other values of some members; new ones come before `event`, which may be long."""
    members = _members.decode(value or b"")
    event = members.pop("event", None)
    members.update({name: msgspec.Raw(msgspec.json.encode(change)) for name, change in changes.items()})
    return msgspec.json.encode(members if event is None else {**members, "event": event})
