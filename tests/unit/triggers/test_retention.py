"""From days to marks."""

from __future__ import annotations

import pytest

from access.organizations import Organization
from runtime.settings import RetentionSettings
from schemas.ids import OrganizationId
from triggers.retention import Retention, mark_ms, of

_HOUR_MS = 3_600_000
PLANS = RetentionSettings(free_days=7)


@pytest.mark.parametrize(
    ("plan", "own", "expected"),
    [
        ("free", None, Retention(7, own=False)), ("pro", None, Retention(None, own=False)), ("free", 0, Retention(None, own=True)),
        ("pro", 30, Retention(30, own=True)),
    ],
)  # fmt: skip
def test_an_organizations_own_days_come_before_its_plans_and_zero_is_for_ever(plan: str, own: int | None, expected: Retention) -> None:
    assert of(Organization(OrganizationId("org"), "Acme", plan, None, retention_days=own), PLANS) == expected


def test_marks_stand_at_whole_hours_and_never_take_what_is_younger_than_its_days() -> None:
    now_ms = 1_795_485_083_160
    mark = mark_ms(30, now_ms)
    assert mark % _HOUR_MS == 0
    assert 0 <= now_ms - 30 * 24 * _HOUR_MS - mark < _HOUR_MS
    assert mark_ms(30, now_ms + 1) == mark
    assert mark_ms(30, 5) == 0
