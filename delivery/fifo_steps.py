"""One step of a FIFO endpoint's delivery: as `delivery.deliver`, but what comes later is told to the caller instead of going away.

A retry or work that is put off never goes through a delay topic: the endpoint's next event waits behind it anyway.
"""

from __future__ import annotations

from typing import Final

from delivery import policy
from delivery.context import Context, Task
from delivery.deliver import Deliveries
from delivery.endpoints import Endpoint
from delivery.journal import Journal
from delivery.outbox import Outbox
from schemas.deliveries import Attempted, Dead, Retry, RetryTask

#: The last attempt there can be at one event (`schemas.deliveries.AttemptNumber`).
ATTEMPTS_MAX: Final = 1_000


class Disabled(Exception):
    """The endpoint is not deleted and takes nothing: nothing was attempted."""


class Steps(Deliveries):
    """Of one endpoint, one at a time."""

    def __init__(self, context: Context, partition: int, journal: Journal, outbox: Outbox) -> None:
        super().__init__(context, partition, journal, outbox)
        self._next: RetryTask | None = None

    async def take(self, task: Task) -> RetryTask | None:
        """What is to be done next about this event; None where it is delivered or given up. Raises `Disabled`.

        With the number of this attempt it was put off, with the next one it failed.
        """
        self._next = None
        await self.step(task)
        return self._next

    async def announce_blocked(self, endpoint: Endpoint, event_type: str, made: Attempted) -> None:
        """That it fails is told at once, whatever its circuit breaker makes of it."""
        await self._health.announce(self._context.gates.of(endpoint), event_type, made)

    async def _later(self, put_off: RetryTask, task: Task) -> None:
        self._next = put_off

    async def _follow_up(self, task: Task, attempted: Attempted) -> None:
        if not isinstance(attempted.next, Retry):
            await super()._follow_up(task, attempted)
            return
        self._next = policy.retry_task(attempted, attempted.next, task.history, task.value)
        if attempted.status == policy.GONE:
            await self._health.gone(task.event.type, attempted)

    def _settled(self, task: Task) -> None:
        """Only with the position, which the runner writes; it looks at the attempt before that."""

    async def _journalled(self, task: Task, made: Attempted) -> None:
        if made.error == "endpoint_disabled":
            raise Disabled
        await super()._journalled(task, made)

    def _following(self, task: Task, endpoint: Endpoint | None, made: Attempted, retry_after: str | None) -> Retry | Dead | None:
        following = super()._following(task, endpoint, made, retry_after)
        if (
            not isinstance(following, Dead)
            or endpoint is None
            or following.reason == "erased"
            or not endpoint.fifo_block
            or made.attempt >= ATTEMPTS_MAX
        ):
            return following
        return policy.blocked(
            made.attempt,
            made.started_at_ms + made.duration_ms,
            endpoint.schedule_s,
            self._context.settings.fifo_blocked_pause_s,
            retry_after=retry_after,
            jitter=policy.jitter_of(task.event.id, task.endpoint_id, task.attempt, self._context.settings.jitter),
        )
