from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from runtime import telemetry
from runtime.settings import TelemetrySettings
from runtime.telemetry import event_line, event_lines_on, log


class Stream:
    """Standard output as bytes; `writes` are what came in one call each."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffer = self

    def write(self, data: bytes) -> int:
        self.writes.append(data)
        return len(data)

    def flush(self) -> None: ...

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.writes).splitlines()]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    made = Stream()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(telemetry, "_route_stdlib", lambda _level: None)
    telemetry.configure("tested", TelemetrySettings())
    yield made
    monkeypatch.setattr(telemetry, "_event_lines", None)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_the_event_lines_of_a_tick_are_one_write_of_whole_lines(stream: Stream) -> None:
    for number in range(3):
        event_line("event.appended", event_id=f"evt_{number}", offset=number)
    assert stream.writes == []
    await asyncio.sleep(0)
    assert len(stream.writes) == 1
    assert [(line["event"], line["event_id"], line["offset"]) for line in stream.lines] == [
        ("event.appended", f"evt_{number}", number) for number in range(3)
    ]
    for line in stream.lines:
        assert (line["process"], line["pid"], line["level"]) == ("tested", os.getpid(), "info")
        assert line["timestamp"].endswith("Z")


async def test_a_line_about_the_process_comes_after_the_event_lines_before_it(stream: Stream) -> None:
    event_line("event.appended", event_id="evt_1")
    log.warning("producer.failed")
    assert [line["event"] for line in stream.lines] == ["event.appended", "producer.failed"]
    await asyncio.sleep(0)
    assert len(stream.lines) == 2


def test_without_an_event_loop_a_line_is_written_at_once(stream: Stream) -> None:
    event_line("event.appended", event_id="evt_1")
    assert [line["event_id"] for line in stream.lines] == ["evt_1"]


async def test_no_line_is_lost_or_torn_when_threads_write_beside_the_loop(stream: Stream) -> None:
    def write(name: int) -> None:
        for number in range(200):
            log.info("beside", name=name, number=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for number in range(500):
        event_line("event.appended", number=number)
        if number % 10 == 0:
            await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert [line["number"] for line in stream.lines if line["event"] == "event.appended"] == list(range(500))
    assert len(stream.lines) == 500 + 4 * 200


def test_event_lines_can_be_switched_off(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)  # pytest puts its own in place between a fixture and its test
    telemetry.configure("tested", TelemetrySettings(log_events=False))
    assert not event_lines_on()
    event_line("event.appended")
    log.info("process.started")
    assert [line["event"] for line in stream.lines] == ["process.started"]
