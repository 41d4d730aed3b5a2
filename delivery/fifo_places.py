"""Positions of FIFO endpoints: how they are ordered, moved, and found again by a new owner. Pure.

Positions only grow, and of two the higher counts, so what a worker that stood still writes late moves nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from schemas.deliveries import FifoPosition, Planned, RetryTask
from schemas.events import SCHEMA_VERSION
from schemas.ids import EndpointId


def first(planned: Planned, endpoint_id: EndpointId, journal_offset: int) -> FifoPosition:
    """Of an endpoint nothing was planned for before: right at its first plan, which is where its order begins."""
    return FifoPosition(
        v=SCHEMA_VERSION,
        organization=planned.organization,
        mode=planned.mode,
        endpoint_id=endpoint_id,
        journal_offset=journal_offset,
        accepted_offset=planned.accepted_offset - 1,
    )


def passed(position: FifoPosition, journal_offset: int) -> FifoPosition:
    """No plan below `journal_offset` is left for it."""
    return position if journal_offset <= position.journal_offset else replace(position, journal_offset=journal_offset)


def done(position: FifoPosition, journal_offset: int, accepted_offset: int) -> FifoPosition:
    """The event planned at `journal_offset` is delivered or given up."""
    return FifoPosition(
        v=SCHEMA_VERSION,
        organization=position.organization,
        mode=position.mode,
        endpoint_id=position.endpoint_id,
        journal_offset=journal_offset + 1,
        accepted_offset=accepted_offset,
    )


def failed(position: FifoPosition, task: RetryTask, *, blocked: bool) -> FifoPosition:
    """An attempt at the next event failed: `task` is the next one."""
    return replace(
        position,
        event_id=task.event_id,
        attempt=task.attempt,
        not_before_ms=task.not_before_ms,
        history=task.history,
        blocked=blocked,
    )


def height(position: FifoPosition) -> tuple[int, int, int]:
    return position.accepted_offset, position.attempt, position.journal_offset


class _Named(NamedTuple):
    """An endpoint in the plans that were read: its position before the first of them, and where the last is."""

    before: FifoPosition
    last: int


class Found:
    """What a new owner of a partition finds: the positions, and the plans of the journal from `begin` to `end` (exclusive)."""

    def __init__(self) -> None:
        self.begin = 0
        self.end = 0
        self._positions: dict[EndpointId, FifoPosition] = {}
        self._named: dict[EndpointId, _Named] = {}

    def add_position(self, endpoint_id: EndpointId, position: FifoPosition | None) -> None:
        """In the order of the log. None: the endpoint is gone, and nothing of it is left."""
        if position is None:
            self._positions.pop(endpoint_id, None)
        elif (known := self._positions.get(endpoint_id)) is None or height(position) > height(known):
            self._positions[endpoint_id] = position

    def add_plan(self, offset: int, planned: Planned) -> None:
        for endpoint_id in planned.fifo:
            known = self._named.get(endpoint_id)
            self._named[endpoint_id] = _Named(first(planned, endpoint_id, offset) if known is None else known.before, offset)

    def starts(self) -> Iterator[tuple[FifoPosition, bool]]:
        """Each endpoint's position, and whether there may be plans for it from there on.

        One without a position was first planned for by an owner that died before it could write one: that plan is among those read.
        """
        for endpoint_id in self._positions.keys() | self._named.keys():
            named = self._named.get(endpoint_id)
            position = self._positions.get(endpoint_id)
            if position is not None:
                more = position.journal_offset < self.begin or (named is not None and named.last >= position.journal_offset)
                yield position, more
            elif named is not None:
                yield named.before, True
