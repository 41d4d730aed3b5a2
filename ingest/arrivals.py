"""Events on their way into the log, each with what is known of its reservation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from access.envelopes import DataKey
from access.http import Context
from ingest.idempotency import Outcome, Reservation
from runtime.kafka import Headers
from schemas import codec
from schemas.events import Ingested
from schemas.problems import DUPLICATE, IN_FLIGHT, KEY_REUSED, ProblemError

_MAY_APPEND: Final[tuple[Outcome, ...]] = ("reserved", "takeover")


class Arrival:
    """One event. `name` is its reservation's key in Redis, None for an event without a dedup key; `owner` is this request's alone.

    `checked` is the epoch count (`access.auth.Authenticator.changes`) at which its schema was last looked at.
    """

    def __init__(self, event: Ingested, name: str | None, owner: str, checked: int) -> None:
        self.event = event
        self.name = name
        self.owner = owner
        self.checked = checked
        #: What its payload and subject are sealed under, at an organization that asks for it.
        self.key: DataKey | None = None
        self.asked = False
        #: What Redis answered last; None before, without Redis, and without a key.
        self.held: Reservation | None = None
        #: Whether Redis may hold a reservation of this request: also when an answer was lost, or not waited for.
        self.may_hold = False

    def under(self, key: DataKey) -> None:
        """It will be sealed under this key. The first one makes its fingerprint, under which it is reserved."""
        if self.key is None:
            self.event = msgspec.structs.replace(self.event, fingerprint=key.fingerprint(self.event.fingerprint))
        self.key = key

    def asking(self) -> None:
        """A reservation is about to be asked for."""
        self.asked = self.may_hold = True

    def answered(self, held: Reservation | None) -> None:
        """None: no answer came."""
        self.held = held
        self.may_hold = held is None or held.outcome in _MAY_APPEND

    @property
    def pending(self) -> bool:
        """Whether another request under the same key is under way."""
        return self.held is not None and self.held.outcome == "pending"

    def to_append(self, window_s: int) -> Ingested:
        """The event as it goes into the log. `window_s`: seconds for which a key is kept.

        Raises the problems of a key that is taken: `duplicate-event`, `idempotency-key-reused`, `request-in-flight`.
        """
        held = self.held
        if held is None or held.outcome == "reserved":
            return self.event if self.key is None else self.key.seal(self.event)
        if held.outcome == "takeover":
            event = msgspec.structs.replace(self.event, id=held.event_id)  # the same event must keep its id
            return event if self.key is None else self.key.seal(event)  # sealed last: the envelope is bound to the id
        located = {"Location": f"/events/{held.event_id}"}
        members = {"id": held.event_id, "idempotency_window_s": window_s}
        if held.outcome == "duplicate":
            detail = f"This event is {held.event_id} already; nothing was added. Do not send it again."
            raise ProblemError(DUPLICATE, detail, headers=located, members=members)
        if held.outcome == "conflict":
            detail = f"Under this idempotency key {held.event_id} was sent, with another type, subject or payload. Use a new key."
            raise ProblemError(KEY_REUSED, detail, headers=located, members=members)
        raise ProblemError(
            IN_FLIGHT, "Another request with this idempotency key is under way. Ask again in a moment.",
            headers={"Retry-After": str(max(1, -(-held.remaining_ms // 1000)))}, members={"id": held.event_id},
        )  # fmt: skip


def first_of_each_key(arrivals: Mapping[int, Arrival]) -> tuple[list[int], list[int]]:
    """(places of the first event of each dedup key and of those without one, places of the others), in order."""
    seen: set[str] = set()
    first: list[int] = []
    later: list[int] = []
    for place, arrival in arrivals.items():
        (later if arrival.name in seen else first).append(place)
        if arrival.name is not None:
            seen.add(arrival.name)
    return first, later


def record_headers(event: Ingested, context: Context) -> Headers:
    return (
        (codec.HEADER_EVENT_ID, event.id.encode()),
        *codec.standard_headers(event.encoding),
        (codec.HEADER_REQUEST_ID, context.request_id.encode()),
        (codec.HEADER_TRACEPARENT, context.trace.traceparent.encode()),
    )
