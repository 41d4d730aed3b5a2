"""What follows an attempt, and what is done instead of one. Pure: the schedule and the times are parameters, jitter comes from the ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from schemas.deliveries import Attempted, Dead, DeadLetter, PastAttempt, Retry, RetryTask
from schemas.events import SCHEMA_VERSION
from schemas.ids import EndpointId, EventId

#: The receiver says it will never take this again (Standard Webhooks): the endpoint is disabled.
GONE: Final = 410
#: The error class of failures that are our own (`delivery.local_failures`).
LOCAL: Final = "local"

_SECONDS: Final = re.compile(r"[0-9]+", re.ASCII)
#: Digits of a number of seconds that are looked at: more are as good as for ever.
_DIGITS: Final = 15
#: A Retry-After and a jitter together never make a pause longer than this many times itself.
_PAUSES_MAX: Final = 2

#: While nobody is reached, work is put off this many times as often as its schedule has pauses before it is our outage no more. By then it
#: waits an hour each time.
_ALONE_TIMES: Final = 8


def succeeded(status: int | None) -> bool:
    """2xx only; a redirect is a failure, because following it would post somewhere nobody registered."""
    return status is not None and 200 <= status <= 299


def follow_up(
    status: int | None, attempt: int, ended_at_ms: int, schedule_s: Sequence[float], *, retry_after: str | None = None, jitter: float = 0.0
) -> Retry | Dead | None:
    """None after success. `schedule_s[n]` is the pause between attempts n + 1 and n + 2; after the last the delivery is dead.

    The next attempt is due no earlier than the pause says, no earlier than `retry_after` asks, and no later than twice the pause. `jitter`
    is a part of the pause, added (see `jitter_of`).
    """
    if succeeded(status):
        return None
    if status == GONE:
        return Dead(reason="gone")
    if attempt > len(schedule_s):
        return Dead(reason="exhausted")
    return _retry(attempt, ended_at_ms, schedule_s[attempt - 1], retry_after, jitter)


def blocked(
    attempt: int, ended_at_ms: int, schedule_s: Sequence[float], pause_s_min: float, *, retry_after: str | None = None, jitter: float = 0.0
) -> Retry:
    """After the last pause of the schedule, where an endpoint waits for the event all the same: that pause again, or `pause_s_min`."""
    pause_s = schedule_s[attempt - 1] if attempt <= len(schedule_s) else max([*schedule_s[-1:], pause_s_min])
    return _retry(attempt, ended_at_ms, pause_s, retry_after, jitter)


def _retry(attempt: int, ended_at_ms: int, pause_s: float, retry_after: str | None, jitter: float) -> Retry:
    pause_ms = round(pause_s * 1000)
    asked_ms = retry_after_ms(retry_after, ended_at_ms) or 0
    wait_ms = min(max(pause_ms, asked_ms) + round(jitter * pause_ms), _PAUSES_MAX * pause_ms)
    return Retry(attempt=attempt + 1, not_before_ms=ended_at_ms + wait_ms)


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """How long the receiver asks us to wait: seconds or an HTTP date (RFC 9110 section 10.2.3). None for anything else, never negative."""
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return int(text[:_DIGITS]) * 1000
    try:
        at = parsedate_to_datetime(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)  # "-0000", or a zone that is missing: an HTTP date is always UTC
        return max(0, round(at.timestamp() * 1000) - now_ms)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def jitter_of(event_id: EventId, endpoint_id: EndpointId, number: int, most: float) -> float:
    """At least 0, below `most`; the same for the same delivery and number, so that what a crash makes again is due when it was."""
    digest = hashlib.sha256(f"{event_id}\n{endpoint_id}\n{number}".encode()).digest()
    return most * int.from_bytes(digest[:8]) / 2**64


def parked_ms(delays_s: Sequence[float], schedule_s: Sequence[float], attempt: int, parked: int) -> int:
    """The longest a delivery may be put off at once: the pause it would meet if each time it was put off had been a failed attempt.

    Never less than `put_off_ms`: an endpoint with a schedule of seconds, dead for days, would otherwise write each of its deliveries to the
    log again every second.
    """
    pause_ms = round(schedule_s[min(attempt + parked, len(schedule_s)) - 1] * 1000) if schedule_s else 0
    return max(pause_ms, put_off_ms(delays_s, parked))


def put_off_ms(delays_s: Sequence[float], parked: int) -> int:
    """How long work waits for which there is no room: the smallest delay, each time the next longer one."""
    return round(sorted(delays_s)[min(parked, len(delays_s) - 1)] * 1000)


def is_our_outage(parked: int, schedule_s: Sequence[float], reaches_others: bool) -> bool:
    """Whether a `local` failure costs no attempt: always while this machine reaches nobody. While it reaches others, an endpoint that
    alone cannot be reached from here (a name whose servers do not answer, an address family we do not have) is given up on as any other,
    in the end. So is everything after a very long while: who has one endpoint only, whose name is gone, must hear of it some day.
    """
    times = max(1, len(schedule_s))
    return parked < (times if reaches_others else _ALONE_TIMES * times)


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
        round=attempted.round,
        cause=attempted.cause,
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
        round=attempted.round,
        cause=attempted.cause,
        history=[*history, past(attempted)],
        event=msgspec.Raw(event),
    )
