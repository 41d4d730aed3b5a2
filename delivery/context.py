"""What the partitions of one worker share, and the attempt as a task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from delivery.attempt import Sender
from delivery.endpoints import Endpoints
from delivery.journal import Source
from runtime.clock import Clock
from runtime.kafka import Bus, Headers
from runtime.lifecycle import StallGuard
from runtime.settings import Settings
from schemas.deliveries import PastAttempt
from schemas.events import Ingested
from schemas.ids import EndpointId


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
    ) -> None:
        self.settings = settings.delivery
        self.clock = clock
        self.bus = bus
        self.endpoints = endpoints
        self.sender = sender
        self.guard = guard
        self.topic_delays = topic_delays
        self.worker = worker
        self.slots = asyncio.Semaphore(settings.delivery.concurrency)
        self._endpoint_slots: dict[EndpointId, asyncio.Semaphore] = {}

    def endpoint_slots(self, endpoint: EndpointId) -> asyncio.Semaphore:
        return self._endpoint_slots.setdefault(endpoint, asyncio.Semaphore(self.settings.endpoint_concurrency))


class Task(NamedTuple):
    """One attempt to make: of an event to an endpoint. `value` is the ingested value, `source` the record that asks for it."""

    event: Ingested
    value: bytes
    endpoint_id: EndpointId
    attempt: int
    history: Sequence[PastAttempt]
    source: Source
    headers: Headers
