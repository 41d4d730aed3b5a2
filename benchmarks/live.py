"""The live projection over records that are in the log already: one process, from its first row to its last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.rig import Rig
from runtime.postgres import connect
from triggers.system import PROCESSES, until

_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Projected:
    """`records` were folded in `took_s` seconds; CPU seconds of the process and of the whole database server meanwhile."""

    records: int
    took_s: float
    cpu_s: float
    database_cpu_s: float

    @property
    def rate(self) -> float:
        return self.records / self.took_s


def project(bench: Rig, counts: Mapping[str, int]) -> Projected:
    """Start `triggers process project` and wait until as many records of each topic are folded as there are. It goes on running."""
    total, name = sum(counts.values()), "project"
    with connect(bench.system.settings.postgres, application="bench") as connection:
        connection.autocommit = True

        def folded() -> int:
            found = connection.execute(
                "SELECT coalesce(sum(next_offset), 0)::int8 FROM folds.projection_offsets WHERE topic = ANY(%s)", (list(counts),)
            ).fetchone()
            return 0 if found is None else int(found[0])

        bench.system.start_process(name, PROCESSES["project"])
        until(lambda: folded() > 0, 60, "the first row", 0.01)
        begun, began_s, cpu_s, database_cpu_s = folded(), time.monotonic(), bench.cpu_s(name), bench.database_cpu_s()
        until(lambda: folded() >= total, _TIMEOUT_S, "the last row", 0.02)
        took_s = time.monotonic() - began_s
        return Projected(total - begun, took_s, bench.cpu_s(name) - cpu_s, bench.database_cpu_s() - database_cpu_s)
