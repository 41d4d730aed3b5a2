"""Facts of one topic by their offsets, in columns: an object for each would be most of a busy worker's memory. Pure.

A fact here is a number that stands for it (`number`), where it stands in the log, since when it is known, and the record that led to it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

#: Facts taken from the front before the columns are cut.
_CUT_AFTER: Final = 4_096
_NO_SOURCE: Final = -1
_HASH_BITS: Final = 64
_HASH_MASK: Final = (1 << _HASH_BITS) - 1
_UUID_CHARS: Final = 36


class Source(NamedTuple):
    """The record whose handling led to a fact: topic and offset, same partition. Of a FIFO endpoint's: the topic of positions, and the
    accepted offset of the event."""

    topic: str
    offset: int


def number(identity: str, *rest: object) -> int:
    """What stands for a fact about an event, or a round: its UUID whole, and 64 bits of a hash of the rest. Of this process only.

    So two facts are mistaken for each other only if they are about the same event and their hashes, seeded by chance, are the same.
    """
    return int(identity[-_UUID_CHARS:].replace("-", ""), 16) << _HASH_BITS | hash(rest) & _HASH_MASK


class Facts:
    """In order of offset. `add` is cheap where offsets nearly grow, as reports come back."""

    def __init__(self) -> None:
        self._offsets = array("q")
        self._since_ms = array("q")
        self._numbers: list[int] = []
        self._source_offsets = array("q")
        self._source_topics = array("h")
        self._topics: list[str] = []
        self._begin = 0

    def __len__(self) -> int:
        return len(self._offsets) - self._begin

    @property
    def first_offset(self) -> int:
        """Raises `IndexError` where there is none."""
        return self._offsets[self._begin]

    @property
    def first_since_ms(self) -> int:
        return self._since_ms[self._begin]

    @property
    def first_source(self) -> Source | None:
        """None: not known."""
        topic = self._source_topics[self._begin]
        return None if topic == _NO_SOURCE else Source(self._topics[topic], self._source_offsets[self._begin])

    def add(self, offset: int, since_ms: int, fact: int, source: Source | None) -> None:
        topic, source_offset = (_NO_SOURCE, 0) if source is None else (self._topic(source.topic), source.offset)
        offsets = self._offsets
        at = len(offsets)
        if at > self._begin and offset < offsets[-1]:
            at = bisect_right(offsets, offset, self._begin)
        offsets.insert(at, offset)
        self._since_ms.insert(at, since_ms)
        self._numbers.insert(at, fact)
        self._source_offsets.insert(at, source_offset)
        self._source_topics.insert(at, topic)

    def take(self) -> int:
        """The first one, away. Raises `IndexError` where there is none."""
        fact = self._numbers[self._begin]
        self._begin += 1
        if self._begin >= _CUT_AFTER and 2 * self._begin >= len(self._offsets):
            self._cut()
        return fact

    def _topic(self, name: str) -> int:
        try:
            return self._topics.index(name)  # there are a handful
        except ValueError:
            self._topics.append(name)
            return len(self._topics) - 1

    def _cut(self) -> None:
        for column in (self._offsets, self._since_ms, self._numbers, self._source_offsets, self._source_topics):
            del column[: self._begin]
        self._begin = 0
