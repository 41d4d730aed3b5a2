"""Records about webhook deliveries: the journal (`deliveries.attempts`), delayed retries and dead letters.

A failed attempt's journal record already says what follows (`next`), so the retry or dead letter it causes is a pure function
of that record and of its task: after a crash it is scheduled again as it was, not anew.

A *round* is one run of a delivery's schedule. The first is planned when the event comes; others are asked for (`deliveries.requests`), each
under an id of its own, so that its attempts count from 1 again and what came before stays as it was.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Raw, Struct

from schemas.events import EventIdField, Milliseconds, Mode, Offset, OrganizationIdField, TextField
from schemas.ids import ENDPOINT_ID_PATTERN, ROUND_ID_PATTERN, EndpointId, RoundId

EndpointIdField = Annotated[EndpointId, Meta(pattern=ENDPOINT_ID_PATTERN, max_length=64)]
AttemptNumber = Annotated[int, Meta(ge=1, le=1_000)]
#: Of what only ever grows: far above anything that comes about within a topic's retention.
COUNT_MAX: Final = 1_000_000_000
#: Dead letters that one recovery leaves out: they travel in its record.
LEFT_OUT_MAX: Final = 5_000
#: An answer's beginning as base64, or sealed and then base64: of `RESPONSE_BYTES_MAX` at most, with room for what seals it.
RESPONSE_BYTES_MAX: Final = 65_536
ResponseField = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", max_length=2 * RESPONSE_BYTES_MAX)]
#: `gone`: it answered 410. `endpoint_missing`, `endpoint_disabled`: it was deleted, or disabled, when the attempt was due.
#: `erased`: the event can be read by nobody any more; there is no dead letter then.
DeadReason = Literal["exhausted", "gone", "endpoint_missing", "endpoint_disabled", "erased"]
#: The round that an event's plan begins.
FIRST_ROUND: Final = RoundId("")
RoundField = Annotated[RoundId, Meta(pattern=ROUND_ID_PATTERN, max_length=64)]
AnyRoundField = Annotated[RoundId, Meta(pattern=f"{ROUND_ID_PATTERN}|^$", max_length=64)]
#: Why a round was asked for. `test`: an event made for it, one attempt. `retry`: one event to one endpoint. `recover`: what an endpoint
#: missed. `redrive`: dead letters. `replay`: from the log.
Cause = Literal["test", "retry", "recover", "redrive", "replay"]


class Retry(Struct, frozen=True, tag_field="kind", tag="retry"):
    """Attempt `attempt` is due at `not_before_ms`."""

    attempt: AttemptNumber
    not_before_ms: Milliseconds


class Dead(Struct, frozen=True, tag_field="kind", tag="dead"):
    """The schedule is used up, or the endpoint will not take this event."""

    reason: DeadReason


class Planned(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="planned"):
    """The endpoints an accepted event goes to, fixed before its first attempt. `accepted_offset` is its place in `events.accepted`.

    `held`: endpoints that would take it and were disabled when it came. Nothing is sent to them; what was missed can be counted and
    recovered. `fifo`: endpoints that get it in order, each at its own pace (`delivery.fifo`); they are not in `endpoint_ids`.
    """

    v: int
    event_id: EventIdField
    organization: OrganizationIdField
    mode: Mode
    accepted_offset: Offset
    endpoint_ids: list[EndpointIdField]
    held: list[EndpointIdField] = []
    fifo: list[EndpointIdField] = []


class Requested(Struct, frozen=True, kw_only=True, tag_field="kind", tag="requested"):
    """The plan of a round that was asked for, fixed before its first attempt."""

    v: int
    event_id: EventIdField
    organization: OrganizationIdField
    mode: Mode
    endpoint_id: EndpointIdField
    round: RoundField
    cause: Cause


class Attempted(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="attempted"):
    """One POST to one endpoint and what follows from it. `status` is None when no answer came; then `error` names the class.

    `error`: `timeout`, `connect`, `dns`, `tls`, `reset`, `protocol`, `status` (an answer outside 2xx), `egress`, `local` (perhaps our own
    outage), `endpoint_missing`, `endpoint_disabled`, `cancelled` (a retry of a replay that was cancelled: nothing was posted),
    `erased` (nothing was posted). `response` is the first bytes of the answer's body, base64; of an encrypted event they are sealed
    (`access.envelopes.seal_response`). `next` is None after success, after a test and when `cancelled`. `cause` is None in
    the first round.
    """

    v: int
    event_id: EventIdField
    organization: OrganizationIdField
    mode: Mode
    endpoint_id: EndpointIdField
    attempt: AttemptNumber
    outcome: Literal["delivered", "failed"]
    started_at_ms: Milliseconds
    duration_ms: Milliseconds
    worker: TextField
    status: int | None = None
    error: TextField | None = None
    response: ResponseField | None = None
    next: Retry | Dead | None = None
    round: AnyRoundField = FIRST_ROUND
    cause: Cause | None = None


JournalRecord = Planned | Attempted | Requested


class PastAttempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt as a task's history keeps it."""

    attempt: AttemptNumber
    started_at_ms: Milliseconds
    status: int | None = None
    error: TextField | None = None


class RetryTask(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On a delay topic: make attempt `attempt` of this event to this endpoint, not before `not_before_ms`.

    `hop` counts the delay topics the task has been through before this one, so that each leg is recognised after a crash. `parked` counts
    how often this attempt was due and put off without being made; `turn` names who gave it its turn at `not_before_ms`, where the
    endpoint has a rate (see `delivery.pace`).

    `event` is the ingested value, verbatim, so that every attempt posts the same bytes without reading another topic.
    """

    v: int
    organization: OrganizationIdField
    mode: Mode
    event_id: EventIdField
    endpoint_id: EndpointIdField
    attempt: AttemptNumber
    not_before_ms: Milliseconds
    hop: Annotated[int, Meta(ge=0, le=COUNT_MAX)] = 0
    parked: Annotated[int, Meta(ge=0, le=COUNT_MAX)] = 0
    turn: TextField | None = None
    round: AnyRoundField = FIRST_ROUND
    cause: Cause | None = None
    history: list[PastAttempt]
    event: Raw


class FifoPosition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a FIFO endpoint is. Key: its id. Of two positions the higher counts, whichever was written later (`delivery.fifo_places`).

    Plans in `deliveries.attempts` below `journal_offset` are done with, and so is every event up to `accepted_offset` in `events.accepted`
    (-1: none). `event_id` is the next event once its first attempt has failed, or None: then `attempt` is the one to be made, not before
    `not_before_ms`, after those of `history`. `blocked`: its schedule is used up, and the endpoint is one that waits for it all the same.
    """

    v: int
    organization: OrganizationIdField
    mode: Mode
    endpoint_id: EndpointIdField
    journal_offset: Offset
    accepted_offset: Annotated[int, Meta(ge=-1)]
    event_id: EventIdField | None = None
    attempt: AttemptNumber = 1
    not_before_ms: Milliseconds = 0
    history: list[PastAttempt] = []
    blocked: bool = False


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery given up, with everything needed to redrive it. `history` is of this round."""

    v: int
    organization: OrganizationIdField
    mode: Mode
    event_id: EventIdField
    endpoint_id: EndpointIdField
    reason: DeadReason
    dead_at_ms: Milliseconds
    round: AnyRoundField = FIRST_ROUND
    cause: Cause | None = None
    history: list[PastAttempt]
    event: Raw


class Redelivery(Struct, frozen=True, kw_only=True, tag_field="kind", tag="redelivery"):
    """Asked for: a round of one delivery. `event` is an ingested value, verbatim; for a test one that is in no other topic."""

    v: int
    round: RoundField
    cause: Cause
    organization: OrganizationIdField
    mode: Mode
    event_id: EventIdField
    endpoint_id: EndpointIdField
    event: Raw


class Recovery(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="recovery"):
    """Asked for: a round of every delivery to an endpoint that never succeeded and is not under way, of events received from `since_ms`
    until before `until_ms`: those that ended as dead letters and, with `held`, those it missed while it was disabled. `left_out`: events
    and rounds whose dead letters do not count.

    It is worked off for some seconds, then the rest is asked for in a record of its own. `page` counts these; all up to `after` are done.
    """

    v: int
    round: RoundField
    cause: Cause
    organization: OrganizationIdField
    mode: Mode
    endpoint_id: EndpointIdField
    since_ms: Milliseconds
    until_ms: Milliseconds
    held: bool = True
    event_id: EventIdField | None = None
    left_out: Annotated[list[tuple[EventIdField, AnyRoundField]], Meta(max_length=LEFT_OUT_MAX)] = []
    page: Annotated[int, Meta(ge=0, le=COUNT_MAX)] = 0
    after: EventIdField | None = None


class Replay(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="replay"):
    """Asked for: a round, at one endpoint, of every accepted event of its owner that it takes, read from `events.accepted` from
    `next_offset` until before `until_offset`: those received from `since_ms` until before `until_ms`, of any of `types` (none: of any
    type).

    It is worked off page by page. `page` counts them. Of the pages before: `ingested_high` is the highest ingested offset that was
    read, `begun` how many deliveries were begun. Whether it goes on, and how fast, is a row of the control plane.
    """

    v: int
    round: RoundField
    organization: OrganizationIdField
    mode: Mode
    endpoint_id: EndpointIdField
    next_offset: Offset
    until_offset: Offset
    since_ms: Milliseconds
    until_ms: Milliseconds
    types: list[TextField] = []
    cause: Literal["replay"] = "replay"
    page: Annotated[int, Meta(ge=0, le=COUNT_MAX)] = 0
    ingested_high: Annotated[int, Meta(ge=-1)] = -1
    begun: Annotated[int, Meta(ge=0)] = 0


RequestRecord = Redelivery | Recovery | Replay
