"""Faults in random order. A file of its own, so that it can run beside those of `test_crashes`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.survive import survive

ROUNDS_VERIFY = 28


@pytest.mark.verify
@pytest.mark.timeout(2_400)
def test_many_rounds_of_faults_in_random_order_lose_nothing(tmp_path: Path) -> None:
    """`SEED=` repeats a run's faults; a failure names its seed."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
    chosen = random.Random(seed)
    print(f"seed {seed}", flush=True)
    survive(tmp_path, [chosen.choice(sorted(FAULTS)) for _ in range(ROUNDS_VERIFY)], seed=seed, copies_max=2, gap="either")
