"""The log lines of a process, whoever writes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from runtime import telemetry
from runtime.settings import TelemetrySettings

FIELDS = {"event", "process", "pid", "level", "timestamp"}

WRITER = """
import asyncio, logging, threading
from runtime import telemetry
from runtime.settings import TelemetrySettings

telemetry.configure("here", TelemetrySettings())

async def from_a_task_that_another_thread_started():
    telemetry.event_line("in.task", event_id="evt_1")

async def main():
    loop = asyncio.get_running_loop()
    ask = lambda: asyncio.run_coroutine_threadsafe(from_a_task_that_another_thread_started(), loop).result(5)
    await asyncio.to_thread(lambda: None)
    thread = threading.Thread(target=ask)
    thread.start()
    await asyncio.to_thread(thread.join)

asyncio.run(main())
threads = [
    threading.Thread(target=lambda: logging.getLogger("librdkafka").warning("lost %s", "a broker")),
    threading.Thread(target=lambda: telemetry.log.info("in.thread")),
]
for thread in threads:
    thread.start()
    thread.join()
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("two\\nlines")
"""


def test_every_line_names_its_process_also_those_of_threads_and_of_libraries() -> None:
    ran = subprocess.run([sys.executable, "-c", WRITER], capture_output=True, check=True, timeout=30)
    assert ran.stderr == b""
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["event"] for line in told] == ["in.task", "library", "in.thread", "library"]
    assert all(line.keys() >= FIELDS for line in told), told
    assert {line["process"] for line in told} == {"here"}
    assert len({line["pid"] for line in told}) == 1
    assert told[1]["message"] == "lost a broker"
    assert "ZeroDivisionError" in told[3]["exception"]


def test_an_unknown_level_is_refused_by_the_name_of_its_setting() -> None:
    with pytest.raises(ValueError, match="TRIGGERS_TELEMETRY__LOG_LEVEL"):
        telemetry.configure("here", TelemetrySettings(log_level="loud"))
