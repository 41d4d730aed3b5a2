"""Which accepted events a replay is of, read in the order of the log. Pure: a dry run counts with it, and delivery sends by it."""

from __future__ import annotations

from collections.abc import Sequence

from access import event_filters
from schemas import codec
from schemas.codec import CodecError
from schemas.events import Accepted, Mode
from schemas.ids import OrganizationId
from schemas.keys import record_key


class Selection:
    """Of one owner: events received from `since_ms` until before `until_ms`, of any of `types` (none: of any type).

    `ingested_high` grows with what is read: a record at or below it is a copy that a crash of dedup left behind.
    """

    def __init__(
        self, organization: OrganizationId, mode: Mode, *, since_ms: int, until_ms: int, types: Sequence[str], ingested_high: int = -1
    ) -> None:
        self._key = record_key(organization)
        self._mode = mode
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._types = tuple(types) or None
        self.ingested_high = ingested_high

    def take(self, key: bytes | None, value: bytes | None) -> Accepted | None:
        """The record if it is one of them; None also for one that cannot be read, which was never delivered either."""
        if key != self._key:
            return None
        try:
            accepted = codec.accepted.decode(value)
        except CodecError:
            return None
        event = accepted.event
        if accepted.ingested.offset <= self.ingested_high or record_key(event.organization) != key:
            return None
        self.ingested_high = accepted.ingested.offset
        wanted = event.mode == self._mode and self._since_ms <= event.received_at_ms < self._until_ms
        return accepted if wanted and event_filters.takes(self._types, event.type) else None
