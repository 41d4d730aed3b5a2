"""The attempts at one endpoint, newest first: what its owner looks at when deliveries fail. Order and pages go by the journal."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from access import endpoints
from access.changes import Owner as EndpointOwner
from access.data_keys import DataKeys
from access.envelopes import response_key
from access.times import iso
from projections import opening
from projections.fold import Connection
from projections.queries import Owner
from runtime.sql import load

Outcome = Literal["delivered", "failed"]
PAGE_MAX: Final = 250
#: Before the first page: above every offset of a log.
NEWEST: Final = 2**63 - 1


class EndpointAttempt(NamedTuple):
    """One attempt. `response`: the first bytes of the answer's body, base64. `journal_offset`: its place among the organization's."""

    journal_offset: int
    event_id: str
    attempt: int
    outcome: str
    started_at_ms: int
    duration_ms: int
    status: int | None
    error: str | None
    response: str | None
    next: str | None
    next_at_ms: int | None
    dead_reason: str | None
    round: str | None
    cause: str | None

    def shown(self) -> dict[str, Any]:
        return {
            "event_id": self.event_id,
            "attempt": self.attempt,
            "outcome": self.outcome,
            "started_at": iso(self.started_at_ms),
            "duration_ms": self.duration_ms,
            "status": self.status,
            "error": self.error,
            "response_base64": self.response,
            "next": self.next,
            "next_at": iso(self.next_at_ms),
            "dead_reason": self.dead_reason,
            "round": self.round,
            "cause": self.cause,
        }


async def page(
    connection: Connection,
    keys: DataKeys,
    owner: Owner,
    endpoint: str,
    outcome: Outcome | None,
    *,
    round_id: str | None,
    before: int,
    limit: int,
) -> dict[str, Any] | None:
    """A page as the answer's document; None if the endpoint is not and was not the owner's. `next` is the next page's `before`.

    `round_id`: only attempts of this round, one that was asked for.
    """
    if not await endpoints.is_or_was_of(connection, EndpointOwner(owner.organization, owner.mode), endpoint):
        return None
    values = {
        **owner._asdict(),
        "endpoint_id": endpoint,
        "outcomes": list(get_args(Outcome)) if outcome is None else [outcome],
        "round": round_id,
        "before": before,
        "limit": limit + 1,
    }
    statement = "page_endpoint_attempts" if round_id is None else "page_round_attempts"
    cursor = await connection.execute(load("projections", statement), values)
    rows = [EndpointAttempt._make(row) for row in await cursor.fetchall()]
    more = rows[limit - 1].journal_offset if len(rows) > limit else None
    return {"attempts": [row.shown() for row in await _opened(connection, keys, owner, endpoint, rows[:limit])], "next": more}


async def _opened(
    connection: Connection, keys: DataKeys, owner: Owner, endpoint: str, rows: list[EndpointAttempt]
) -> list[EndpointAttempt]:
    """Answers to encrypted events in clear; those to erased ones are not there any more. One look-up of keys at most."""
    named = {row.journal_offset: key_id for row in rows if (key_id := response_key(row.response)) is not None}
    if not named:
        return rows
    found = await keys.by_ids(connection, owner.organization, named.values())
    return [
        row._replace(response=opening.answer(owner, endpoint, row, found.get(named[row.journal_offset])))
        if row.journal_offset in named
        else row
        for row in rows
    ]
