"""A dedup worker with a naive "seen → drop" table, run as a process of its own: what the crash tests must be able to catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faust.types import TP

from processors import agents, apps
from processors.dedup import marker_of
from runtime.crashpoints import reach
from runtime.settings import Settings
from schemas.keys import table_key
from triggers import processes


class Naive(agents.Dedup):
    """Stock wisdom: a key that is in the table was seen, so its record is dropped."""

    async def _batch(self, tp: TP, batch: Any, current: Callable[[], bool]) -> bool:
        for record in batch:
            event = self._read(tp, record)
            if event is None:
                continue
            if event.dedup_key is None:
                self._forward(tp, record)
                continue
            key = table_key(event.organization, event.mode, event.dedup_key)
            session = self._table.session(tp.partition)
            if session.get(key) is not None:
                continue
            session.put(key, marker_of(event, tp.partition, record.offset, record.timestamp))
            session.write()
            reach("dedup.after_put")
            self._forward(tp, record)
        return True


if __name__ == "__main__":
    vars(apps)["Dedup"] = Naive
    processes.run("dedup", processes.dedup, Settings())
