"""Where the window of idempotency begins and ends, to the millisecond, by the log's clock and no other (RELIABILITY row 50)."""

from __future__ import annotations

import pytest

from processors.dedup import Decision, Marker, decide
from runtime.settings import IngestSettings
from schemas import ids

DAY_MS = int(IngestSettings().idempotency_window_s * 1000)
NOON_MS = 1_764_000_000_000
FIRST, SECOND = ids.event_id(1, bytes(10)), ids.event_id(2, bytes(10))


def marker(event_id: ids.EventId, offset: int, appended_at_ms: int, fingerprint: str = "a") -> Marker:
    return Marker(1, 0, offset, appended_at_ms, event_id, fingerprint)


@pytest.mark.parametrize(
    ("age_ms", "fingerprint", "decision"),
    [
        (0, "a", "duplicate"),
        (1, "b", "conflict"),
        (DAY_MS - 1, "a", "duplicate"),  # 23:59:59.999
        (DAY_MS - 1, "b", "conflict"),
        (DAY_MS, "a", "first"),  # 24:00:00.000
        (DAY_MS, "b", "first"),
        (DAY_MS + 1_000, "a", "first"),  # 24:00:01
        (-1, "a", "duplicate"),  # the broker's clock was set back
        (-26 * 3_600_000, "b", "conflict"),
    ],
)
def test_the_window_is_a_day_of_log_append_time_without_its_last_millisecond(age_ms: int, fingerprint: str, decision: Decision) -> None:
    held, mine = marker(FIRST, 7, NOON_MS), marker(SECOND, 9, NOON_MS + age_ms, fingerprint)
    assert decide(held, mine, DAY_MS) == decision


def test_the_day_is_the_one_that_is_promised() -> None:
    assert DAY_MS == 24 * 3_600_000


@pytest.mark.parametrize("age_ms", [0, DAY_MS - 1, DAY_MS, 7 * DAY_MS])
def test_the_same_event_appended_again_is_a_retry_at_any_age(age_ms: int) -> None:
    assert decide(marker(FIRST, 7, NOON_MS), marker(FIRST, 9, NOON_MS + age_ms), DAY_MS) == "retried"
    assert decide(marker(FIRST, 7, NOON_MS), marker(FIRST, 7, NOON_MS), DAY_MS) == "redelivered"
