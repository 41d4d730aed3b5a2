"""What dedup makes of a record: pure decisions over (marker in the table, record), and the order in which effects must happen.

A marker remembers the record that holds a key: its position, event id, fingerprint and log append time. The log append time of
`events.ingested` is the only clock here, so a replay decides as the first run did. The rules, and why each is there:

* *redelivered*: the marker has the record's own position. The table runs ahead of its changelog and both run ahead of the committed
  offset, so after a crash a first record meets its own marker: write the marker again and forward again, or one of them may be missing.
* *retried*: the marker has the record's event id at another position: the API appended the same event again after an unknown outcome.
  Dropped, whatever its age.
* *duplicate*, *conflict*: the marker is another event's and younger than the window. Dropped and told to `events.duplicates`.
* *first*: everything else. The marker is written (over an expired one) and the record forwarded.

Overwriting forgets the old marker. A record before this one that met the old marker and is not committed yet would be judged by the
new one when it is redelivered after a crash (a retried record would turn into a duplicate of a later event). So before a marker is
overwritten, everything up to the current record is flushed and committed if any uncommitted record touched the same key: `Touched`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from schemas.codec import CodecError
from schemas.events import SCHEMA_VERSION, Duplicate, Ingested, Origin
from schemas.ids import EventId
from schemas.keys import partition_of, record_key

Decision = Literal["first", "redelivered", "retried", "duplicate", "conflict"]
#: Decisions that are told to `events.duplicates`, and the kind written there.
LOST: Final[Mapping[Decision, Literal["duplicate", "conflict"]]] = {"duplicate": "duplicate", "conflict": "conflict"}

#: Touched keys are pruned when this many have gathered: bounds the memory between two commits.
_TOUCHED_PRUNE_SIZE: Final = 50_000


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """The holder of a key. `partition` and `offset` are its position in `events.ingested`, `appended_at_ms` its log append time."""

    v: int
    partition: int
    offset: int
    appended_at_ms: int
    event_id: EventId
    fingerprint: str


_decoder = msgspec.json.Decoder(Marker)
encode_marker: Final = msgspec.json.Encoder().encode


def decode_marker(value: bytes) -> Marker:
    """Raises `msgspec.DecodeError` for foreign bytes: a changelog that is not ours must not be read as empty."""
    return _decoder.decode(value)


def marker_of(event: Ingested, partition: int, offset: int, appended_at_ms: int) -> Marker:
    return Marker(SCHEMA_VERSION, partition, offset, appended_at_ms, event.id, event.fingerprint)


def decide(held: Marker | None, mine: Marker, window_ms: int) -> Decision:
    """What to do with the record `mine` describes, given the marker its key holds. At exactly `window_ms` it is first."""
    if held is None:
        return "first"
    if held.partition == mine.partition and held.offset == mine.offset:
        return "redelivered"
    if held.event_id == mine.event_id:
        return "retried"
    # A broker clock that stepped back gives a negative age: still younger than the window.
    if mine.appended_at_ms - held.appended_at_ms < window_ms:
        return "duplicate" if held.fingerprint == mine.fingerprint else "conflict"
    return "first"


def newer(held: Marker | None, other: Marker) -> Marker:
    """The marker to keep when two meet in recovery: the later position. A stopped worker may write an old one late."""
    return other if held is None or other.offset >= held.offset else held


def check_place(event: Ingested, key: bytes | None, partition: int, partitions: int) -> None:
    """An event under another organization's key, or in another partition than its key's, is parked. Raises `CodecError`."""
    if key != record_key(event.organization):
        raise CodecError("key_mismatch", "the record's key is not the organization in its value")
    if partition_of(key, partitions) != partition:
        raise CodecError("wrong_partition", "the record is not in its key's partition: it was produced with another partitioner")


def duplicate_of(event: Ingested, mine: Marker, held: Marker, decision: Decision) -> Duplicate:
    """The record for `events.duplicates` about an event that lost to `held`."""
    return Duplicate(
        v=SCHEMA_VERSION,
        id=event.id,
        organization=event.organization,
        mode=event.mode,
        type=event.type,
        original_id=held.event_id,
        kind=LOST[decision],
        ingested=Origin(mine.offset, mine.appended_at_ms),
    )


class Touched:
    """Keys met by records of one partition that are not committed past yet: key → offset of the last such record."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._prune_at = _TOUCHED_PRUNE_SIZE

    def __len__(self) -> int:
        return len(self._last)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._last)

    def note(self, key: bytes, offset: int, committed: int) -> None:
        """A record at `offset` read or wrote `key`. `committed` is the next offset the group has committed."""
        self._last[key] = offset
        if len(self._last) >= self._prune_at:
            self._last = {k: o for k, o in self._last.items() if o >= committed}
            self._prune_at = max(_TOUCHED_PRUNE_SIZE, 2 * len(self._last))

    def needs_commit(self, key: bytes, committed: int) -> bool:
        """Whether an uncommitted record met this key, so that overwriting its marker now could change how that record is judged again."""
        return self._last.get(key, -1) >= committed
