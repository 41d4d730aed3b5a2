from __future__ import annotations

import asyncio

import pytest

from runtime import lifecycle
from runtime.lifecycle import StallGuard, Unavailable, wait_for
from runtime.telemetry import Trace


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_process_that_stood_still_longer_than_its_session_is_ended_before_it_produces_anything() -> None:
    time = Time()
    ended: list[str] = []
    guard = StallGuard(5, monotonic=time, on_stall=ended.append)
    time.now = 4.9
    guard.check()
    guard.beat()
    time.now = 9.8
    guard.check()
    assert ended == []
    time.now = 9.91
    guard.check()
    assert len(ended) == 1
    assert "stood still" in ended[0]


def test_waiting_names_the_server_that_did_not_answer_and_why() -> None:
    def probe() -> None:
        raise ConnectionRefusedError("port 1")

    with pytest.raises(Unavailable, match="Kafka did not answer within 0 s: port 1"):
        wait_for("Kafka", probe, 0)


RANDOM = bytes(range(1, 25))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "01-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01\r\nx: y",
    ],
)
def test_anything_but_a_valid_traceparent_starts_a_new_trace(header: str | None) -> None:
    trace = Trace.parse(header, RANDOM)
    assert trace.trace_id == RANDOM[8:24].hex()


def test_a_valid_traceparent_is_continued_with_a_span_of_our_own() -> None:
    trace = Trace.parse("00-" + "ab" * 16 + "-" + "cd" * 8 + "-00", RANDOM)
    assert trace.trace_id == "ab" * 16
    assert trace.span_id == RANDOM[:8].hex()
    assert trace.traceparent == f"00-{'ab' * 16}-{RANDOM[:8].hex()}-01"


async def test_work_beside_the_main_work_ends_the_process_when_it_fails_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []
    monkeypatch.setattr(lifecycle, "die", died.append)

    async def fails() -> None:
        raise OSError("no file")

    async def ends() -> None:
        return

    async def goes_on() -> None:
        await asyncio.sleep(60)

    cancelled = lifecycle.beside(goes_on(), "going on")
    cancelled.cancel()
    await asyncio.wait([cancelled, lifecycle.beside(ends(), "ending"), lifecycle.beside(fails(), "committing")])
    await asyncio.sleep(0)
    assert died == ["committing failed: OSError('no file')"]
