"""What one partition's deliveries have already led to, remembered from the log, so that a crash neither repeats nor forks anything. Pure.

Facts, each with its place in the log: plans, rounds asked for and attempts (`deliveries.attempts`), legs of retries (the delay topics),
dead letters (`deliveries.dead`), records of recoveries (`deliveries.requests`). Everything that an uncommitted source record may have led
to is kept, and everything of at least the last `memory_ms`, so that a copy written late by a worker that stood still is recognised. The
checkpoint is the oldest place kept of each topic: a new owner reads from there before it does anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from schemas.deliveries import FIRST_ROUND, Attempted, Planned, Requested
from schemas.ids import EndpointId, EventId, RoundId

#: Facts kept of one partition above which a line is logged by the owner: the bound is time, this is where it hurts.
FACTS_ALARM: Final = 500_000


class Source(NamedTuple):
    """The record whose handling led to a fact: topic and offset, same partition. Of a FIFO endpoint's: the topic of positions, and the
    accepted offset of the event."""

    topic: str
    offset: int


class Leg(NamedTuple):
    """One stay of a retry on a delay topic: `attempt` is the one to be made, `hop` counts the topics before."""

    event_id: EventId
    endpoint_id: EndpointId
    attempt: int
    hop: int
    round: RoundId = FIRST_ROUND

    @property
    def attempt_key(self) -> Attempt:
        return (self.event_id, self.endpoint_id, self.attempt, self.round)


class Asked(NamedTuple):
    """A round that was asked for, of one delivery."""

    event_id: EventId
    endpoint_id: EndpointId
    round: RoundId


class Page(NamedTuple):
    """A record of a recovery, or of a replay at one endpoint: it may take several."""

    round: RoundId
    number: int
    endpoint_id: EndpointId | None = None


Attempt = tuple[EventId, EndpointId, int, RoundId]
Dead = tuple[EventId, EndpointId, RoundId]
Key = Attempt | EventId | Leg | Asked | Page | Dead


class _Fact(NamedTuple):
    offset: int
    known_since_ms: int
    key: Key
    source: Source | None


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Kept as JSON in the metadata of the commit of `events.accepted`. Short names: the broker takes 4,096 bytes.

    `h`: highest ingested offset taken below the committed offset. `t`: topic → offset to read from.
    """

    h: int = -1
    t: dict[str, int] = {}


_decoder = msgspec.json.Decoder(Checkpoint)


def read_checkpoint(metadata: str | None) -> Checkpoint:
    """No metadata, or not ours: everything is read from the beginning of what the topics hold."""
    if not metadata:
        return Checkpoint()
    try:
        return _decoder.decode(metadata)
    except msgspec.DecodeError:
        return Checkpoint()


class Journal:
    """The memory of one partition. `now_ms` values only need to grow; they come from the owner's clock."""

    def __init__(self, memory_ms: int) -> None:
        self._memory_ms = memory_ms
        self._plans: dict[EventId, tuple[EndpointId, ...]] = {}
        self._attempts: dict[Attempt, Attempted] = {}
        self._legs: dict[Leg, int] = {}
        self._dead: dict[Dead, int] = {}
        self._asked: set[Asked] = set()
        self._pages: set[Page] = set()
        #: Per topic, facts by offset (a heap: reports may come back in any order).
        self._facts: dict[str, list[_Fact]] = {}
        self._ends: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._facts.values()))

    def read_until(self, topic: str, end: int) -> None:
        """The topic was read up to `end` (exclusive): where its checkpoint stands while nothing of it is kept."""
        self._ends[topic] = max(end, self._ends.get(topic, 0))

    def plan(self, event_id: EventId) -> tuple[EndpointId, ...] | None:
        return self._plans.get(event_id)

    def end(self, topic: str) -> int:
        """Behind the last record of the topic that was read or written."""
        return self._ends.get(topic, 0)

    def attempted(self, key: Attempt) -> Attempted | None:
        return self._attempts.get(key)

    def has_leg(self, leg: Leg) -> bool:
        return leg in self._legs

    def is_dead(self, key: Dead) -> bool:
        return key in self._dead

    def is_asked(self, asked: Asked) -> bool:
        return asked in self._asked

    def has_page(self, page: Page) -> bool:
        return page in self._pages

    def add_plan(self, topic: str, offset: int, planned: Planned, now_ms: int, source: Source | None = None) -> None:
        """The first plan of an event stays."""
        self._plans.setdefault(planned.event_id, tuple(planned.endpoint_ids))
        self._keep(topic, offset, now_ms, planned.event_id, source)

    def add_attempt(self, topic: str, offset: int, attempted: Attempted, now_ms: int, source: Source | None = None) -> None:
        """The first record of an attempt stays."""
        key = (attempted.event_id, attempted.endpoint_id, attempted.attempt, attempted.round)
        self._attempts.setdefault(key, attempted)
        self._keep(topic, offset, now_ms, key, source)

    def add_leg(self, topic: str, offset: int, leg: Leg, now_ms: int, source: Source | None = None) -> None:
        self._legs[leg] = offset
        self._keep(topic, offset, now_ms, leg, source)

    def add_dead(self, topic: str, offset: int, key: Dead, now_ms: int, source: Source | None = None) -> None:
        self._dead[key] = offset
        self._keep(topic, offset, now_ms, key, source)

    def add_asked(self, topic: str, offset: int, requested: Requested, now_ms: int, source: Source | None = None) -> None:
        asked = Asked(requested.event_id, requested.endpoint_id, requested.round)
        self._asked.add(asked)
        self._keep(topic, offset, now_ms, asked, source)

    def add_page(self, topic: str, offset: int, page: Page, now_ms: int, source: Source | None = None) -> None:
        self._pages.add(page)
        self._keep(topic, offset, now_ms, page, source)

    def _keep(self, topic: str, offset: int, now_ms: int, key: Key, source: Source | None) -> None:
        heapq.heappush(self._facts.setdefault(topic, []), _Fact(offset, now_ms, key, source))
        self.read_until(topic, offset + 1)

    def forget(self, now_ms: int, is_committed: Callable[[Source | None], bool]) -> None:
        """Drop the oldest facts of each topic that are older than the memory and whose source is committed.

        `is_committed(None)` answers for facts read from the log, whose source is not known: whether everything that was not committed
        when they were read is committed now.
        """
        for facts in self._facts.values():
            while facts and now_ms - facts[0].known_since_ms > self._memory_ms and is_committed(facts[0].source):
                self._drop(heapq.heappop(facts).key)

    def _drop(self, key: Key) -> None:
        if isinstance(key, Leg):
            self._legs.pop(key, None)
        elif isinstance(key, str):
            self._plans.pop(key, None)
        elif isinstance(key, Asked):
            self._asked.discard(key)
        elif isinstance(key, Page):
            self._pages.discard(key)
        elif len(key) == 3:
            self._dead.pop(key, None)
        else:
            self._attempts.pop(key, None)

    def checkpoint(self, highest: int) -> Checkpoint:
        """Where a new owner begins to read each topic, with the highest ingested offset below the watermark."""
        return Checkpoint(
            h=highest, t={topic: self._facts[topic][0].offset if self._facts.get(topic) else end for topic, end in self._ends.items()}
        )


def encode_checkpoint(checkpoint: Checkpoint) -> str:
    return msgspec.json.encode(checkpoint).decode()


def places(checkpoint: Checkpoint, low: Mapping[str, int]) -> dict[str, int]:
    """Where to begin each topic: its checkpoint, not below what retention has left (`low`); what has none from `low`."""
    return {topic: max(offset, checkpoint.t.get(topic, 0)) for topic, offset in low.items()}
