"""What one partition's deliveries have already led to, remembered from the log, so that a crash neither repeats nor forks anything. Pure.

Facts, each with its place in the log: plans, rounds asked for and attempts (`deliveries.attempts`), legs of retries (the delay topics),
dead letters (`deliveries.dead`), records of recoveries (`deliveries.requests`). Everything that an uncommitted source record may have led
to is kept, and everything but its own plans of at least the last `memory_ms`, so that a copy written late by a worker that stood still is
recognised. The checkpoint is the oldest place kept of each topic: a new owner reads from there before it does anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from delivery.facts import Facts, Source, number
from schemas.deliveries import FIRST_ROUND, Attempted, Planned, Requested
from schemas.ids import EndpointId, EventId, RoundId

#: Facts kept of one partition above which a line is logged by the owner: the bound is time, this is where it hurts.
FACTS_ALARM: Final = 500_000


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
    """The memory of one partition. `now_ms` values only need to grow; they come from the owner's clock.

    Of what is over only numbers are kept (`delivery.facts`): a worker of a thousand attempts a second remembers 600,000 of them.
    """

    def __init__(self, memory_ms: int) -> None:
        self._memory_ms = memory_ms
        #: Events of which nothing more is kept than their plan, and failed attempts that something may follow yet.
        self._plans: dict[int, tuple[EndpointId, ...]] = {}
        self._failed: dict[int, Attempted] = {}
        self._known: set[int] = set()
        #: Per topic. A plan of this owner's has done its part when its source is over: it is kept for no longer.
        self._facts: dict[str, Facts] = {}
        self._brief: dict[str, Facts] = {}
        self._ends: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, (*self._facts.values(), *self._brief.values())))

    def read_until(self, topic: str, end: int) -> None:
        """The topic was read up to `end` (exclusive): where its checkpoint stands while nothing of it is kept."""
        self._ends[topic] = max(end, self._ends.get(topic, 0))

    def plan(self, event_id: EventId) -> tuple[EndpointId, ...] | None:
        return self._plans.get(number(event_id))

    def end(self, topic: str) -> int:
        """Behind the last record of the topic that was read or written."""
        return self._ends.get(topic, 0)

    def has_attempt(self, key: Attempt) -> bool:
        return _of_attempt(key) in self._known

    def failed(self, key: Attempt) -> Attempted | None:
        """A journalled attempt, without its response, that something follows. None after success, or once what follows is settled."""
        return self._failed.get(_of_attempt(key))

    def settle(self, key: Attempt) -> None:
        """All that follows a journalled attempt is in the log: that it was made is all that has to be remembered."""
        self._failed.pop(_of_attempt(key), None)

    def has_leg(self, leg: Leg) -> bool:
        return _of_leg(leg) in self._known

    def is_dead(self, key: Dead) -> bool:
        return _of_dead(key) in self._known

    def is_asked(self, asked: Asked) -> bool:
        return _of_asked(asked) in self._known

    def has_page(self, page: Page) -> bool:
        return _of_page(page) in self._known

    def add_plan(self, topic: str, offset: int, planned: Planned, now_ms: int, source: Source | None = None) -> None:
        """The first plan of an event stays."""
        fact = number(planned.event_id)
        self._plans.setdefault(fact, tuple(EndpointId(sys.intern(endpoint_id)) for endpoint_id in planned.endpoint_ids))
        # What a worker that stood still planned may be of a record that is not read yet. And a FIFO endpoint's first position is written
        # after its first plan, and nobody waits for that: the plan must outlast it.
        self._keep(self._facts if planned.fifo or source is None else self._brief, topic, offset, now_ms, fact, source)

    def add_attempt(self, topic: str, offset: int, attempted: Attempted, now_ms: int, source: Source | None = None) -> None:
        """The first record of an attempt stays."""
        fact = _of_attempt((attempted.event_id, attempted.endpoint_id, attempted.attempt, attempted.round))
        if attempted.next is not None and fact not in self._known:
            self._failed[fact] = attempted if attempted.response is None else msgspec.structs.replace(attempted, response=None)
        self._keep(self._facts, topic, offset, now_ms, fact, source)

    def add_leg(self, topic: str, offset: int, leg: Leg, now_ms: int, source: Source | None = None) -> None:
        self._keep(self._facts, topic, offset, now_ms, _of_leg(leg), source)

    def add_dead(self, topic: str, offset: int, key: Dead, now_ms: int, source: Source | None = None) -> None:
        self._keep(self._facts, topic, offset, now_ms, _of_dead(key), source)

    def add_asked(self, topic: str, offset: int, requested: Requested, now_ms: int, source: Source | None = None) -> None:
        asked = Asked(requested.event_id, requested.endpoint_id, requested.round)
        self._keep(self._facts, topic, offset, now_ms, _of_asked(asked), source)

    def add_page(self, topic: str, offset: int, page: Page, now_ms: int, source: Source | None = None) -> None:
        self._keep(self._facts, topic, offset, now_ms, _of_page(page), source)

    def _keep(self, among: dict[str, Facts], topic: str, offset: int, now_ms: int, fact: int, source: Source | None) -> None:
        facts = among.get(topic)
        if facts is None:
            facts = among[topic] = Facts()
        facts.add(offset, now_ms, fact, source)
        self._known.add(fact)
        self.read_until(topic, offset + 1)

    def forget(self, now_ms: int, is_committed: Callable[[Source | None], bool]) -> None:
        """Drop the oldest facts of each topic that are older than the memory and whose source is committed.

        `is_committed(None)` answers for facts read from the log, whose source is not known: whether everything that was not committed
        when they were read is committed now.
        """
        for facts in self._facts.values():
            while facts and now_ms - facts.first_since_ms > self._memory_ms and is_committed(facts.first_source):
                self._drop(facts.take())
        for facts in self._brief.values():
            while facts and is_committed(facts.first_source):
                self._drop(facts.take())

    def _drop(self, fact: int) -> None:
        self._known.discard(fact)
        self._failed.pop(fact, None)
        self._plans.pop(fact, None)

    def checkpoint(self, highest: int) -> Checkpoint:
        """Where a new owner begins to read each topic, with the highest ingested offset below the watermark."""
        begins = dict(self._ends)
        for among in (self._facts, self._brief):
            for topic, facts in among.items():
                if facts:
                    begins[topic] = min(begins[topic], facts.first_offset)
        return Checkpoint(h=highest, t=begins)


def _of_attempt(key: Attempt) -> int:
    return number(key[0], "attempt", *key[1:])


def _of_leg(leg: Leg) -> int:
    return number(leg[0], "leg", *leg[1:])


def _of_dead(key: Dead) -> int:
    return number(key[0], "dead", *key[1:])


def _of_asked(asked: Asked) -> int:
    return number(asked[0], "asked", *asked[1:])


def _of_page(page: Page) -> int:
    return number(page[0], "page", *page[1:])


def encode_checkpoint(checkpoint: Checkpoint) -> str:
    return msgspec.json.encode(checkpoint).decode()


def places(checkpoint: Checkpoint, low: Mapping[str, int]) -> dict[str, int]:
    """Where to begin each topic: its checkpoint, not below what retention has left (`low`); what has none from `low`."""
    return {topic: max(offset, checkpoint.t.get(topic, 0)) for topic, offset in low.items()}
