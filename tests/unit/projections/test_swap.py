from __future__ import annotations

import pytest

from projections.swap import allowed


@pytest.mark.parametrize(
    ("left_s", "times"), [(60.0, 1), (30.1, 1), (30.0, 2), (15.1, 2), (15.0, 4), (7.5, 8), (3.75, 16), (0.1, 16), (0.0, 16), (-1.0, 16)]
)
def test_a_swap_that_cannot_catch_up_lets_live_folds_wait_for_more_as_its_time_runs_out(left_s: float, times: int) -> None:
    assert allowed(2_000, left_s, 60.0) == times * 2_000
