"""The API process, as `triggers serve` runs it, except that on SIGUSR1 its Kafka producer fails for good.

The next one is waited for a little longer than in the product, so that readiness, which is asked every second at most, can be seen.
"""

from __future__ import annotations

import signal
from typing import Any

import ingest.append
import triggers.api
from runtime.kafka import Bus
from tests.librdkafka import fail_for_good
from triggers.cli import app

REBUILD_PAUSE_S = 1.5


class RememberedBus(Bus):
    latest: Bus | None = None

    async def start(self) -> None:
        await super().start()
        RememberedBus.latest = self


def on_signal(*_: Any) -> None:
    latest = RememberedBus.latest
    if latest is not None and latest._producer is not None:
        fail_for_good(latest._producer)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, on_signal)
    ingest.append._REBUILD_PAUSE_S = REBUILD_PAUSE_S  # type: ignore[misc]
    triggers.api.Bus = RememberedBus  # type: ignore[attr-defined]
    app(["serve"])
