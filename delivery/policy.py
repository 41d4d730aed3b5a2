"""What follows an attempt. Pure: the schedule and the time the attempt ended are parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from schemas.deliveries import Attempted, Dead, DeadLetter, PastAttempt, Retry, RetryTask
from schemas.events import SCHEMA_VERSION

#: The receiver says it will never take this again (Standard Webhooks): the endpoint is disabled.
GONE: Final = 410


def succeeded(status: int | None) -> bool:
    """2xx only; a redirect is a failure, because following it would post somewhere nobody registered."""
    return status is not None and 200 <= status <= 299


def follow_up(status: int | None, attempt: int, ended_at_ms: int, schedule_s: Sequence[float]) -> Retry | Dead | None:
    """None after success. `schedule_s[n]` is the pause between attempts n + 1 and n + 2; after the last the delivery is dead."""
    if succeeded(status):
        return None
    if status == GONE:
        return Dead(reason="gone")
    if attempt > len(schedule_s):
        return Dead(reason="exhausted")
    return Retry(attempt=attempt + 1, not_before_ms=ended_at_ms + round(schedule_s[attempt - 1] * 1000))


def past(attempted: Attempted) -> PastAttempt:
    return PastAttempt(attempt=attempted.attempt, started_at_ms=attempted.started_at_ms, status=attempted.status, error=attempted.error)


def retry_task(attempted: Attempted, retry: Retry, history: Sequence[PastAttempt], event: bytes) -> RetryTask:
    """The task a failed attempt leads to: a pure function of its journal record and of what was known before it."""
    return RetryTask(
        v=SCHEMA_VERSION,
        organization=attempted.organization,
        mode=attempted.mode,
        event_id=attempted.event_id,
        endpoint_id=attempted.endpoint_id,
        attempt=retry.attempt,
        not_before_ms=retry.not_before_ms,
        history=[*history, past(attempted)],
        event=msgspec.Raw(event),
    )


def dead_letter(attempted: Attempted, dead: Dead, history: Sequence[PastAttempt], event: bytes) -> DeadLetter:
    """The dead letter a last attempt leads to: a pure function of the same."""
    return DeadLetter(
        v=SCHEMA_VERSION,
        organization=attempted.organization,
        mode=attempted.mode,
        event_id=attempted.event_id,
        endpoint_id=attempted.endpoint_id,
        reason=dead.reason,
        dead_at_ms=attempted.started_at_ms + attempted.duration_ms,
        history=[*history, past(attempted)],
        event=msgspec.Raw(event),
    )
