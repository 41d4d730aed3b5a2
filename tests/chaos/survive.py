"""One life of the rig under load with faults one after the other, and what is there at its end."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.rig import Fault, Rig


def survive(tmp_path: Path, faults: Sequence[str | Fault], *, seed: int = 1, copies_max: int = 1, gap: str = "recovered") -> None:
    """`gap`: what there must be between two faults: `recovered`, `progress`, or `either`, by chance."""
    chosen = random.Random(seed)
    named = [(one, FAULTS[one]) if isinstance(one, str) else (f"crash round {n}", one) for n, one in enumerate(faults)]
    with Rig(tmp_path).running() as rig:
        rig.load(seed=seed)
        rig.recovered()
        for name, fault in named:
            began_s = time.monotonic()
            fault(rig)
            over_s = time.monotonic()
            if gap == "recovered" or (gap == "either" and chosen.random() < 0.5):
                rig.recovered()
            else:
                rig.progress()
            print(f"{name}: {over_s - began_s:.1f} s, and {time.monotonic() - over_s:.1f} s until it went on", flush=True)
        anomalies = rig.settle(copies_max=copies_max)
    assert not anomalies, "\n".join([f"after {', '.join(name for name, _ in named)} (seed {seed}):", *anomalies[:40], *rig.announced[-60:]])
