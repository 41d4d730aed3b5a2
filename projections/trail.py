"""What is known about one event: gathered record by record, in any order and as often as one likes, from any topic. Pure.

Rows of the folds are put into the same places (`projections.explain`), so that an event tells the same story whichever was asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from access.envelopes import key_id
from schemas import codec
from schemas.codec import (
    HEADER_EVENT_ID,
    HEADER_REJECTED_DETAIL,
    HEADER_REJECTED_OFFSET,
    HEADER_REJECTED_PARTITION,
    HEADER_REJECTED_REASON,
    HEADER_REJECTED_TOPIC,
    HEADER_REQUEST_ID,
    HEADER_TRACEPARENT,
    CodecError,
)
from schemas.deliveries import FIRST_ROUND, Attempted, DeadLetter, Planned, Requested, RetryTask
from schemas.events import PLAIN, First, Ingested
from schemas.ids import DataKeyId, EventId
from schemas.records import Record
from schemas.topics import (
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    INBOX_ACKS,
)

#: A version-00 traceparent: `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context section 3.2.2).
_TRACE_ID: Final = slice(3, 35)
_TRACEPARENT_CHARS: Final = 55


class At(NamedTuple):
    """A place in the log."""

    topic: str
    partition: int
    offset: int


class About(NamedTuple):
    """What the event is. `dedup_key` is None without one, and where only the folds were asked.

    `data_key`: of an encrypted event, whose size and digest are the envelope's and whose subject is inside.
    """

    type: str
    subject: str | None
    occurred_at: str | None
    received_at_ms: int
    payload_bytes: int
    payload_sha256: str
    dedup_key: str | None
    data_key: DataKeyId | None = None


class Accepted(NamedTuple):
    """Its first accepted copy: its position in the inbox, unless it was moved there and has another (`first`)."""

    at: At
    ingested_offset: int
    first: First | None = None


class Lost(NamedTuple):
    """It lost to another event under its dedup key. `at` is None where only the folds were asked: they do not keep it."""

    kind: str
    original_id: str
    ingested_offset: int
    at: At | None


class Rejected(NamedTuple):
    """A record of it that could not be read, and where that record was."""

    at: At
    origin: At
    reason: str
    detail: str


class Ack(NamedTuple):
    at: At
    acked_at_ms: int


class Plan(NamedTuple):
    at: At
    endpoint_ids: tuple[str, ...]
    held: tuple[str, ...]


class Round(NamedTuple):
    """A run of a delivery's schedule that was asked for, beside the one of the plan."""

    at: At
    endpoint_id: str
    round: str
    cause: str


@dataclass
class Trail:
    """Evidence about `event_id`. With `organization`, only records of that one count."""

    event_id: EventId
    organization: str | None = None
    mode: str | None = None
    about: About | None = None
    trace_id: str | None = None
    request_id: str | None = None
    #: Every record of it in `events.ingested`: place → log append time. More than one where the API appended it again.
    copies: dict[At, int] = field(default_factory=dict)
    accepted: Accepted | None = None
    lost: Lost | None = None
    rejected: dict[At, Rejected] = field(default_factory=dict)
    ack: Ack | None = None
    plan: Plan | None = None
    #: The first record of each attempt, by its place in the journal.
    attempts: dict[At, Attempted] = field(default_factory=dict)
    #: The first record of each round that was asked for.
    rounds: dict[At, Round] = field(default_factory=dict)
    legs: dict[At, RetryTask] = field(default_factory=dict)
    dead: dict[At, DeadLetter] = field(default_factory=dict)

    def learn(self, topic: str, partition: int, record: Record) -> None:
        """Take what a record says of the event; of other events' records nothing. What cannot be read tells nothing."""
        wanted = self.event_id.encode()
        if wanted not in (record.value or b"") and dict(record.headers).get(HEADER_EVENT_ID) != wanted:
            return
        at = At(topic, partition, record.offset)
        try:
            if topic == EVENTS_REJECTED:
                self._learn_rejected(at, record)
            else:
                self._learn(at, record)
        except CodecError:
            if topic == EVENTS_INGESTED and self._is_key_of(record):
                self.copies[at] = record.timestamp_ms
                self._learn_headers(record)

    def _is_key_of(self, record: Record) -> bool:
        """Whether a record that cannot be read is of the organization as far as its key says."""
        return self.organization is None or record.key == self.organization.encode()

    def _learn(self, at: At, record: Record) -> None:
        value = record.value
        if at.topic == EVENTS_INGESTED:
            event = codec.ingested.decode(value)
            if self._is_ours(event.id, event.organization, event.mode):
                self.copies[at] = record.timestamp_ms
                self.about = _about(event)
                self._learn_headers(record)
        elif at.topic == EVENTS_ACCEPTED:
            accepted = codec.accepted.decode(value)
            event = accepted.event
            if self._is_ours(event.id, event.organization, event.mode):
                self.copies[At(EVENTS_INGESTED, at.partition, accepted.ingested.offset)] = accepted.ingested.appended_at_ms
                self.about = _about(event)
                self._learn_headers(record)
                self.accept(Accepted(at, accepted.ingested.offset, accepted.first))
        elif at.topic == EVENTS_DUPLICATES:
            lost = codec.duplicate.decode(value)
            if self._is_ours(lost.id, lost.organization, lost.mode):
                self.copies[At(EVENTS_INGESTED, at.partition, lost.ingested.offset)] = lost.ingested.appended_at_ms
                if self.lost is None or self.lost.at is None or at < self.lost.at:
                    self.lost = Lost(lost.kind, lost.original_id, lost.ingested.offset, at)
        elif at.topic == INBOX_ACKS:
            ack = codec.ack.decode(value)
            if self.event_id in ack.ids and self._is_ours(self.event_id, ack.organization, ack.mode):
                self.acknowledge(Ack(at, record.timestamp_ms))
        else:
            self._learn_delivery(at, value)

    def _learn_delivery(self, at: At, value: bytes | None) -> None:
        if at.topic == DELIVERIES_ATTEMPTS:
            entry = codec.journal.decode(value)
            if not self._is_ours(entry.event_id, entry.organization, entry.mode):
                return
            if isinstance(entry, Planned):
                takers = {*entry.endpoint_ids, *entry.fifo}
                if takers or entry.held:  # one without any endpoint is not known to the fold either
                    self.planned(Plan(at, tuple(sorted(takers)), tuple(sorted(set(entry.held) - takers))))
            elif isinstance(entry, Requested):
                self.asked(Round(at, entry.endpoint_id, entry.round, entry.cause))
            else:
                self.attempted(at, entry)
        elif at.topic == DELIVERIES_DEAD:
            letter = codec.dead_letter.decode(value)
            if self._is_ours(letter.event_id, letter.organization, letter.mode):
                self.dead[at] = letter
        else:
            task = codec.retry_task.decode(value)
            if self._is_ours(task.event_id, task.organization, task.mode):
                self.legs[at] = task

    def _learn_rejected(self, at: At, record: Record) -> None:
        found = dict(record.headers)
        named = [b'"%b":"%b"' % (name, self.event_id.encode()) for name in (b"id", b"event_id")]
        if found.get(HEADER_EVENT_ID) != self.event_id.encode() and not any(name in (record.value or b"") for name in named):
            return
        if not self._is_key_of(record):
            return
        texts = {name: (value or b"").decode(errors="replace") for name, value in found.items()}
        partition, offset = (texts.get(name, "") for name in (HEADER_REJECTED_PARTITION, HEADER_REJECTED_OFFSET))
        origin = At(
            texts.get(HEADER_REJECTED_TOPIC, ""), int(partition) if partition.isdecimal() else -1, int(offset) if offset.isdecimal() else -1
        )
        self.rejected[at] = Rejected(at, origin, texts.get(HEADER_REJECTED_REASON, ""), texts.get(HEADER_REJECTED_DETAIL, ""))
        self._learn_headers(record)

    def _is_ours(self, event_id: str, organization: str, mode: str) -> bool:
        if event_id != self.event_id or self.organization not in (None, organization) or self.mode not in (None, mode):
            return False
        self.organization, self.mode = organization, mode
        return True

    def _learn_headers(self, record: Record) -> None:
        for name, value in record.headers:
            text = (value or b"").decode(errors="replace")
            if name == HEADER_TRACEPARENT and len(text) == _TRACEPARENT_CHARS and self.trace_id is None:
                self.trace_id = text[_TRACE_ID]
            elif name == HEADER_REQUEST_ID and self.request_id is None:
                self.request_id = text

    # -- what a record says, and what a row of a fold says

    def accept(self, accepted: Accepted) -> None:
        """The first copy is the one that counts."""
        if self.accepted is None or accepted.at < self.accepted.at:
            self.accepted = accepted

    def acknowledge(self, ack: Ack) -> None:
        """The lowest ack position wins."""
        if self.ack is None or ack.at < self.ack.at:
            self.ack = ack

    def planned(self, plan: Plan) -> None:
        """The first plan stays."""
        if self.plan is None or plan.at < self.plan.at:
            self.plan = plan

    def attempted(self, at: At, attempted: Attempted) -> None:
        """The first record of an attempt stays."""
        key = (attempted.endpoint_id, attempted.attempt, attempted.round)
        known = [place for place, other in self.attempts.items() if (other.endpoint_id, other.attempt, other.round) == key]
        if not known:
            self.attempts[at] = attempted
        elif at < known[0]:
            del self.attempts[known[0]]
            self.attempts[at] = attempted

    def asked(self, asked: Round) -> None:
        """The first record of a round stays."""
        known = [at for at, other in self.rounds.items() if (other.endpoint_id, other.round) == (asked.endpoint_id, asked.round)]
        if not known or asked.at < known[0]:
            for at in known:
                del self.rounds[at]
            self.rounds[asked.at] = asked

    # -- deliveries

    def endpoints(self) -> list[str]:
        """Those of the plan, and those that a round was asked for."""
        planned = () if self.plan is None else self.plan.endpoint_ids
        return sorted({*planned, *(one.endpoint_id for one in self.rounds.values())})

    def last_round(self, endpoint_id: str) -> str:
        """The round that was begun last."""
        asked = [one for _, one in sorted(self.rounds.items()) if one.endpoint_id == endpoint_id]
        return asked[-1].round if asked else FIRST_ROUND

    def made(self, endpoint_id: str, of_round: str | None = None) -> list[tuple[At, Attempted]]:
        """Attempts at an endpoint in the order of the log, of one round or of all."""
        every = sorted(self.attempts.items(), key=lambda one: one[0])
        return [(at, one) for at, one in every if one.endpoint_id == endpoint_id and of_round in (None, one.round)]


def _about(event: Ingested) -> About:
    payload = bytes(event.payload)
    return About(
        event.type,
        event.subject,
        event.occurred_at,
        event.received_at_ms,
        len(payload),
        hashlib.sha256(payload).hexdigest(),
        event.dedup_key,
        None if event.encoding == PLAIN else key_id(payload),
    )
