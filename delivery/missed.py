"""What endpoints missed, as the folds tell: which deliveries ended without a success, and the events they were of.

The tables are named with their schema: this is the control plane's connection, and reading them is all that delivery does there.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from delivery.waiting import until_postgres_answers
from runtime.postgres import Pool
from runtime.sql import load
from schemas import kept
from schemas.deliveries import Recovery
from schemas.events import Ingested, Mode
from schemas.ids import EventId, OrganizationId
from schemas.topics import DELIVERIES_ATTEMPTS

#: Events looked at in one statement.
_LOOKED_AT_MAX: Final = 100


class Found(NamedTuple):
    """Events to deliver, in order, and the last that was looked at; None if there are no more behind it."""

    event_ids: list[EventId]
    last: EventId | None


class Missed:
    """Every method waits for Postgres as long as it takes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def folded(self, partition: int) -> int:
        """The journal's next offset that is not folded yet."""
        rows = await self._rows("journal_folded", {"topic": DELIVERIES_ATTEMPTS, "partition": partition})
        return int(rows[0][0]) if rows else 0

    async def some(self, recovery: Recovery, after: EventId | None, count_max: int) -> Found:
        """Of the next events that the endpoint may have missed, after one or from the first on, those to deliver: at most `count_max`."""
        since, until = kept.range_of(recovery.since_ms, recovery.until_ms, recovery.event_id)
        values = {
            "organization": recovery.organization, "mode": recovery.mode, "endpoint_id": recovery.endpoint_id, "round": recovery.round,
            "since": since, "until": until, "after": after or "", "held": recovery.held, "limit": _LOOKED_AT_MAX,
            "left_events": [event for event, _ in recovery.left_out], "left_rounds": [round_id for _, round_id in recovery.left_out],
        }  # fmt: skip
        found: list[EventId] = []
        rows = await self._rows("some_missed", values)
        for number, (event_id, wanted) in enumerate(rows, 1):
            if wanted:
                found.append(event_id)
            if len(found) == count_max and number < len(rows):
                return Found(found, event_id)
        return Found(found, rows[-1][0] if len(rows) == _LOOKED_AT_MAX else None)

    async def event(self, organization: OrganizationId, mode: Mode, event_id: EventId) -> Ingested | None:
        """The event as the inbox keeps it: what is posted of it is the same."""
        rows = await self._rows("event_in_inbox", {"organization": organization, "mode": mode, "event_id": event_id})
        return kept.ingested(event_id, organization, mode, kept.Row._make(rows[0])) if rows else None

    async def _rows(self, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        async def ask(connection: Any) -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = await (await connection.execute(load("delivery", statement), values)).fetchall()
            return found

        return await until_postgres_answers(self._pool, ask)
