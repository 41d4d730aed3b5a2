"""What the partitions of one worker share, and the attempt as a task."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from delivery.attempt import Sender
from delivery.delays import for_parking
from delivery.endpoints import Endpoints
from delivery.facts import Source
from delivery.fifo_pages import Pages
from delivery.fifo_queue import Room
from delivery.gates import Gates
from delivery.journal import Attempt
from delivery.missed import Missed
from delivery.opening import Opening
from delivery.replay_state import ReplayState
from delivery.slots import Budget, Slots
from runtime.clock import Clock
from runtime.kafka import Bus, Headers
from runtime.lifecycle import StallGuard
from runtime.metrics import IN_FLIGHT
from runtime.settings import Settings
from schemas.deliveries import FIRST_ROUND, Cause, PastAttempt
from schemas.events import Ingested
from schemas.ids import EndpointId, RoundId

#: Some endpoint took a delivery within this time: this machine reaches the world.
_WORKING_S: Final = 60.0


class Context:
    """What all partitions of a worker share."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        bus: Bus,
        endpoints: Endpoints,
        sender: Sender,
        guard: StallGuard,
        topic_delays: Mapping[str, float],
        worker: str,
        missed: Missed,
        replays: ReplayState,
        opening: Opening,
    ) -> None:
        self.settings = settings.delivery
        self.clock = clock
        self.bus = bus
        self.endpoints = endpoints
        self.sender = sender
        self.guard = guard
        self.topic_delays = topic_delays
        self.worker = worker
        self.missed = missed
        self.replays = replays
        self.opening = opening
        self.gates = Gates(settings.delivery, clock, secrets.token_hex(6))
        self.slots = Slots(settings.delivery.concurrency, settings.delivery.slow_concurrency, settings.delivery.slow_after_s)
        IN_FLIGHT.set_function(lambda: self.slots.under_way)
        self.legs = Budget(settings.delivery.leg_bytes_in_flight_max)
        self.parking_delays_s = for_parking(settings.delivery.delays_s, settings.delivery.journal_memory_s)
        self.pages = Pages(settings.kafka)
        #: Replays read apart from FIFO endpoints, which are live, and leave them most places for attempts.
        self.replay_pages = Pages(settings.kafka)
        self.replay_places = asyncio.Semaphore(settings.delivery.replay_concurrency)
        self.fifo_room = Room(settings.delivery.fifo_bytes_max)
        self._delivered_at_s: float | None = None

    def delivered(self) -> None:
        """Some endpoint took a delivery."""
        self._delivered_at_s = self.clock.monotonic_s()

    def reaches_others(self) -> bool:
        return self._delivered_at_s is not None and self.clock.monotonic_s() - self._delivered_at_s < _WORKING_S


class Task(NamedTuple):
    """One attempt to make: of an event to an endpoint. `value` is the ingested value, `source` the record that asks for it.

    `hop` counts the delay topics before, -1 for a task that comes from none; `parked`, `turn` and `not_before_ms`: see `RetryTask`.
    `round` and `cause`: see `schemas.deliveries`.
    """

    event: Ingested
    value: bytes
    endpoint_id: EndpointId
    attempt: int
    history: Sequence[PastAttempt]
    source: Source
    headers: Headers
    hop: int = -1
    parked: int = 0
    turn: str | None = None
    not_before_ms: int = 0
    round: RoundId = FIRST_ROUND
    cause: Cause | None = None

    @property
    def attempt_key(self) -> Attempt:
        return (self.event.id, self.endpoint_id, self.attempt, self.round)
