"""What Faust calls its producer, over `processors.outputs`: a flush waits for every report, and then remembers how far the changelog is."""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from processors.outputs import Outputs


class Producer(driver.Producer):
    """What Faust calls its producer: ours. Flush waits for the report of everything produced before it."""

    app: Any
    transport: Any
    outputs: Outputs

    async def on_start(self) -> None:
        self.outputs = self.transport.outputs
        self.outputs.start()

    async def on_stop(self) -> None:
        await self.outputs.stop()

    async def flush(self) -> None:
        await self.outputs.flush()
        self._save_persisted()

    def _save_persisted(self) -> None:
        """Remember how far the changelog is confirmed, so that recovery starts there; only for partitions still ours (else it would
        re-open the RocksDB folder of a partition that has moved)."""
        confirmed = self.outputs.take_confirmed_changelog()
        if not confirmed:
            return
        assigned = self.app.consumer.assignment()
        for (topic, partition), offset in confirmed.items():
            tp = TP(topic, partition)
            if tp in assigned:
                self.app.tables._changelogs[topic].data.set_persisted_offset(tp, offset)

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("nothing is sent through Faust's producer: agents use Outputs")

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are made by the admin step only."""

    def supports_headers(self) -> bool:
        return True
