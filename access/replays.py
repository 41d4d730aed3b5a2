"""Replays as operators ask for them and steer them. Delivery does the work (`delivery.replay`), and writes down here how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from access import audit, endpoints, event_filters, organizations
from access.changes import Owner
from access.endpoints import Endpoint
from access.organizations import NotPossible, NotThere
from access.times import iso
from runtime.sql import load
from schemas import deliveries
from schemas.events import SCHEMA_VERSION, Mode
from schemas.ids import EndpointId, OrganizationId, RoundId

#: What a uuid7 can say: no event is received later.
TIME_MAX_MS: Final = (1 << 48) - 1
RATE_PER_S_MIN: Final = 0.01

State = Literal["running", "paused", "cancelled"]
STATES: Final[tuple[State, ...]] = ("running", "paused", "cancelled")
_WENT: Final[Mapping[str, str]] = {"running": "replay.resumed", "paused": "replay.paused", "cancelled": "replay.cancelled"}


class Wanted(NamedTuple):
    """What is to be replayed: events of `owner` from `from_position` until before `until_position` in its partition of
    `events.accepted`, received from `since_ms` until before `until_ms`, of any of `event_types` (none: of any type).
    """

    owner: Owner
    event_types: tuple[str, ...]
    from_position: int
    until_position: int
    since_ms: int
    until_ms: int

    def shown(self) -> dict[str, Any]:
        """As a replay of it is shown."""
        return {
            **self.owner._asdict(), "event_types": list(self.event_types) or None,
            "since": iso(self.since_ms) if self.since_ms > 0 else None,
            "until": iso(self.until_ms) if self.until_ms < TIME_MAX_MS else None,
            "from_position": self.from_position, "until_position": self.until_position,
        }  # fmt: skip


class Targets(NamedTuple):
    """Who gets it, and who does not: endpoint and why (`disabled`, `fifo`)."""

    takers: list[Endpoint]
    skipped: dict[EndpointId, str]


class Part(NamedTuple):
    """One endpoint of a replay. `waiting`: nothing in the log asks for its next page."""

    replay: RoundId
    endpoint_id: EndpointId
    expected: int | None
    page: int
    next_position: int
    ingested_high: int
    begun: int
    waiting: bool
    ended: str | None

    def shown(self, state: str) -> dict[str, Any]:
        now = self.ended or ("paused" if self.waiting and state == "paused" else "waiting" if self.waiting else "running")
        return {
            "endpoint_id": self.endpoint_id, "state": now, "expected": self.expected, "begun": self.begun,
            "next_position": self.next_position,
        }  # fmt: skip


class Replay(NamedTuple):
    """`state`: one of `STATES`, or `done`. Times are Unix milliseconds."""

    id: RoundId
    organization: OrganizationId
    mode: Mode
    event_types: list[str]
    from_position: int
    until_position: int
    since_ms: int
    until_ms: int
    rate_per_s: float
    state: str
    skipped: dict[EndpointId, str]
    created_at_ms: int
    changed_at_ms: int
    parts: tuple[Part, ...] = ()

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id, "organization": self.organization, "mode": self.mode, "state": self.state,
            "event_types": self.event_types or None, "since": iso(self.since_ms) if self.since_ms > 0 else None,
            "until": iso(self.until_ms) if self.until_ms < TIME_MAX_MS else None, "from_position": self.from_position,
            "until_position": self.until_position, "rate_per_s": self.rate_per_s, "created_at": iso(self.created_at_ms),
            "changed_at": iso(self.changed_at_ms), "endpoints": [part.shown(self.state) for part in self.parts],
            "skipped": skipped(self.skipped),
        }  # fmt: skip

    def requests(self) -> list[deliveries.Replay]:
        """What is to be asked for in the log: the next page of each endpoint for which nothing does."""
        return [
            deliveries.Replay(
                v=SCHEMA_VERSION, round=self.id, organization=self.organization, mode=self.mode, endpoint_id=part.endpoint_id,
                next_offset=part.next_position, until_offset=self.until_position, since_ms=self.since_ms, until_ms=self.until_ms,
                types=self.event_types, page=part.page, ingested_high=part.ingested_high, begun=part.begun,
            )
            for part in self.parts
            if part.waiting and part.ended is None and self.state == "running"
        ]  # fmt: skip


def skipped(found: Mapping[EndpointId, str]) -> list[dict[str, str]]:
    return [{"endpoint_id": endpoint, "why": why} for endpoint, why in found.items()]


def targets(connection: Connection[Any], owner: Owner, endpoint: str | None, *, out_of_order: bool) -> Targets:
    """One endpoint, or all of an owner, as they are now. Raises `NotThere`, `NotPossible`."""
    organizations.get(connection, owner.organization)
    if endpoint is not None:
        found = endpoints.get(connection, owner, endpoint)
        why = _why_not(found, out_of_order=out_of_order)
        if why == "disabled":
            raise NotPossible(f"the endpoint {found.id} is disabled: enable it first")
        if why is not None:
            raise NotPossible(
                f"the endpoint {found.id} gets its events in order, and a replay comes between new ones: say out of order if it may"
            )
        return Targets([found], {})
    every = endpoints.page(connection, owner)
    takers = [one for one in every if _why_not(one, out_of_order=out_of_order) is None]
    if not takers:
        raise NotPossible("no endpoint of the organization and mode is enabled and may be sent events out of order")
    return Targets(takers, {one.id: why for one in every if (why := _why_not(one, out_of_order=out_of_order)) is not None})


def _why_not(one: Endpoint, *, out_of_order: bool) -> str | None:
    if not one.enabled:
        return "disabled"
    return "fifo" if one.configuration.fifo and not out_of_order else None


def check_rate(rate_per_s: float, rate_per_s_max: float) -> float:
    """Raises `ValueError`."""
    if not RATE_PER_S_MIN <= rate_per_s <= rate_per_s_max:
        raise ValueError(f"the rate must be {RATE_PER_S_MIN:g} to {rate_per_s_max:g} deliveries a second to each endpoint")
    return rate_per_s


def check_types(event_types: Sequence[str] | None) -> tuple[str, ...]:
    """Raises `ValueError`."""
    return event_filters.check_event_types(event_types or ())


def start(
    connection: Connection[Any], replay: RoundId, wanted: Wanted, to: Targets, *, rate_per_s: float,
    expected: Mapping[EndpointId, int] | None, actor: str,
) -> Replay:  # fmt: skip
    """Noted and audited, in one transaction; `Replay.requests` are to be sent then. `expected`: deliveries that were counted."""
    with connection.transaction():
        values = {
            **wanted._asdict(), **wanted.owner._asdict(), "id": replay, "event_types": list(wanted.event_types), "rate_per_s": rate_per_s,
            "skipped": Jsonb(to.skipped),
        }  # fmt: skip
        connection.execute(load("access", "insert_replay"), values)
        for taker in to.takers:
            part = {"replay": replay, "endpoint": taker.id, "next_position": wanted.from_position}
            connection.execute(
                load("access", "insert_replay_endpoint"), {**part, "expected": None if expected is None else expected[taker.id]}
            )
        made = get(connection, replay)
        detail = {name: value for name, value in made.shown().items() if name not in {"id", "organization", "created_at", "changed_at"}}
        _audit(connection, actor, "replay.started", made, {**detail, "endpoints": [taker.id for taker in to.takers]})
    return made


def get(connection: Connection[Any], replay: str) -> Replay:
    """Raises `NotThere`."""
    row = connection.execute(load("access", "find_replay"), {"id": replay}).fetchone()
    if row is None:
        raise NotThere(f"there is no replay {replay}: `triggers replay list` shows them")
    return _with_parts(connection, [Replay(*row)])[0]


def page(connection: Connection[Any], organization: str | None, *, before: str = "", limit: int) -> list[Replay]:
    """Newest first, of one organization or of all, from the one before an id on (an empty one is behind all)."""
    rows = connection.execute(load("access", "list_replays"), {"organization": organization, "before": before, "limit": limit})
    return _with_parts(connection, [Replay(*row) for row in rows])


def change(connection: Connection[Any], replay: str, *, state: State | None = None, rate_per_s: float | None = None, actor: str) -> Replay:
    """As it is now; `Replay.requests` are to be sent then. What is so already is not audited, but a resumed one is sent again.

    Raises `NotThere`, and `NotPossible` for one that is over.
    """
    with connection.transaction():
        connection.execute(load("access", "lock_replay"), {"id": replay})
        before = get(connection, replay)
        over = before.state not in ("running", "paused") and state != before.state
        if over and (before.state, state) != ("done", "cancelled"):  # what is done may still have retries to come
            raise NotPossible(f"the replay {before.id} is {before.state}: start another one")
        after = before._replace(state=state or before.state, rate_per_s=rate_per_s or before.rate_per_s)
        if (after.state, after.rate_per_s) == (before.state, before.rate_per_s):
            return before
        connection.execute(load("access", "update_replay"), {"id": replay, "state": after.state, "rate_per_s": after.rate_per_s})
        if after.state != before.state:
            _audit(connection, actor, _WENT[after.state], before, {"before": {"state": before.state}, "after": {"state": after.state}})
        if after.rate_per_s != before.rate_per_s:
            detail = {"before": {"rate_per_s": before.rate_per_s}, "after": {"rate_per_s": after.rate_per_s}}
            _audit(connection, actor, "replay.updated", before, detail)
        if after.state == "cancelled":
            connection.execute(load("access", "cancel_waiting"), {"id": replay})
        return get(connection, replay)


def _with_parts(connection: Connection[Any], found: list[Replay]) -> list[Replay]:
    rows = connection.execute(load("access", "replay_endpoints"), {"ids": [replay.id for replay in found]})
    parts: dict[RoundId, list[Part]] = {}
    for row in rows:
        part = Part._make(row)
        parts.setdefault(part.replay, []).append(part)
    return [replay._replace(parts=tuple(parts.get(replay.id, ()))) for replay in found]


def _audit(connection: Connection[Any], actor: str, action: str, replay: Replay, detail: Mapping[str, Any]) -> None:
    audit.record(connection, actor=actor, action=action, organization=replay.organization, target=replay.id, detail=detail)
