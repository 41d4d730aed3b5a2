"""A processor against a broker that takes connections and never says a word: its start does not end. Run by `test_stopping`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from processors import apps
from runtime import telemetry
from runtime.clock import SYSTEM
from runtime.lifecycle import StallGuard, stop_on_signals
from runtime.settings import KafkaSettings, ProcessorSettings, Settings
from schemas.topics import FIRST_GENERATION


async def main(broker: str, folder: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker), processor=ProcessorSettings(data_dir=Path(folder)))
    telemetry.configure("dedup", settings.telemetry)
    stop = asyncio.Event()
    stop_on_signals(stop)
    guard = StallGuard(60)
    await apps.run(apps.dedup_app(settings, guard, FIRST_GENERATION), guard, SYSTEM, stop, 60)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
