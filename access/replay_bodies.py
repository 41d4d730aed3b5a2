"""What the operator API takes about replays: types for decoding, and the rules on top of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from access.event_filters import FILTERS_MAX
from access.replays import RATE_PER_S_MIN, TIME_MAX_MS, State
from access.times import Time, unix_ms
from schemas.events import Mode, Offset, OrganizationIdField

EventTypes = Annotated[list[str], Meta(min_length=1, max_length=FILTERS_MAX, description="By name, or order.* for all below order.")]
Rate = Annotated[float, Meta(ge=RATE_PER_S_MIN, description="Deliveries a second to each endpoint.")]


class NewReplay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out bounds nothing: all of an organization's events, to all its endpoints."""

    organization: OrganizationIdField
    mode: Mode = "live"
    endpoint_id: Annotated[str, Meta(max_length=64, description="null: all that are enabled.")] | None = None
    event_types: EventTypes | None = None
    since: Time | None = None
    until: Time | None = None
    from_position: Offset | None = None
    until_position: Offset | None = None
    rate_per_s: Rate | None = None
    out_of_order: Annotated[bool, Meta(description="To FIFO endpoints as well.")] = False
    dry_run: Annotated[bool, Meta(description="Count, and ask for nothing.")] = False

    def span_ms(self) -> tuple[int, int]:
        """Raises `ValueError`."""
        return span_ms(None if self.since is None else unix_ms(self.since), None if self.until is None else unix_ms(self.until))


class ReplayChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    state: State | None = None
    rate_per_s: Rate | None = None


def span_ms(since_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    """Times from and until which events were received, within what an id can say. Raises `ValueError`."""
    begin = 0 if since_ms is None else min(max(since_ms, 0), TIME_MAX_MS)
    end = TIME_MAX_MS if until_ms is None else min(max(until_ms, 0), TIME_MAX_MS)
    if begin >= end:
        raise ValueError("since must be before until")
    return begin, end
