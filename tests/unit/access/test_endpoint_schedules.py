from __future__ import annotations

import math

import pytest

from access.endpoint_schedules import NAMES, STANDARD_S, check_pauses, resolve
from delivery import delays, policy
from runtime.settings import DeliverySettings
from schemas.deliveries import Dead, Retry

DEFAULT_S = (30.0, 120.0)


def test_a_name_stands_for_its_pauses() -> None:
    assert [resolve(name, (1.0, 2.0) if name == "custom" else None, DEFAULT_S) for name in NAMES] == [DEFAULT_S, STANDARD_S, (1.0, 2.0)]
    assert resolve("of a later version", None, DEFAULT_S) == DEFAULT_S


def test_the_standard_schedule_is_that_of_standard_webhooks() -> None:
    minutes = [pause / 60 for pause in STANDARD_S[1:]]
    assert (STANDARD_S[0], minutes) == (5.0, [5, 30, 120, 300, 600, 840, 1_200, 1_440])


@pytest.mark.parametrize("pauses", [[], [0.9], [86_400.5], [1.0] * 21, [math.nan], [math.inf], [-1.0]])
def test_pauses_of_ones_own_have_bounds(pauses: list[float]) -> None:
    with pytest.raises(ValueError, match="1 to 20 pauses of 1 to 86400 seconds"):
        check_pauses(pauses)


@pytest.mark.parametrize("schedule_s", [STANDARD_S, DeliverySettings().schedule_s, (1.0, 86_400.0, 3_601.0, 7.5)])
def test_every_pause_is_composed_of_stays_on_the_delay_topics_and_never_comes_early(schedule_s: tuple[float, ...]) -> None:
    delays_s = DeliverySettings().delays_s
    for attempt, pause_s in enumerate(schedule_s, 1):
        following = policy.follow_up(500, attempt, 0, schedule_s)
        assert following == Retry(attempt + 1, round(pause_s * 1000))
        now_ms, stays = 0, 0
        while (remaining_ms := following.not_before_ms - now_ms) > 0:
            now_ms, stays = delays.due_ms(following.not_before_ms, now_ms, delays.choose(delays_s, remaining_ms)), stays + 1
        assert now_ms == following.not_before_ms
        assert stays <= pause_s / max(delays_s) + 10
    assert policy.follow_up(500, len(schedule_s) + 1, 0, schedule_s) == Dead("exhausted")
