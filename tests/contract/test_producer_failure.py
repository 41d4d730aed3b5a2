"""Producers whose librdkafka fails for good, on a real Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ingest.append import Appender
from processors.outputs import Outputs
from runtime.kafka import AppendError, Bus, Report
from runtime.settings import KafkaSettings, Settings
from schemas.ids import OrganizationId
from schemas.problems import ProblemError
from tests.librdkafka import fail_for_good

ORGANIZATION = OrganizationId("org_producer_failure")
#: Nobody reads it.
TOPIC = "test.producer-failure"


@pytest.fixture(scope="module", autouse=True)
def topic(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for made in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
        made.result(20)


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the process would have ended."""
    reasons: list[str] = []
    for module in ("runtime.kafka", "processors.outputs"):
        monkeypatch.setattr(f"{module}.die", reasons.append)
    return reasons


async def holds(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_producer_that_failed_for_good_says_so_and_refuses_what_comes_after(settings: Settings) -> None:
    reasons: list[str] = []
    bus = Bus(settings.kafka, client_id="test", on_fatal=reasons.append)
    await bus.start()
    assert (await bus.send(TOPIC, None, b"k")).offset >= 0
    assert bus._producer is not None
    fail_for_good(bus._producer)
    await holds(lambda: bool(reasons))
    assert not bus.ready
    with pytest.raises(AppendError) as caught:
        await bus.send(TOPIC, None, b"k")
    assert caught.value.outcome == "not_appended"
    await bus.stop()
    assert len(reasons) == 1


@pytest.mark.parametrize("ending", ["flush", "stop"])
async def test_what_was_posted_is_waited_for_and_told_once(ending: str, settings: Settings) -> None:
    bus = Bus(settings.kafka, client_id="test", linger_ms=300)
    await bus.start()
    reports: list[Report | AppendError] = []
    for _ in range(3):
        bus.post(TOPIC, b"v", b"k", (), reports.append)
    assert (bus.outstanding, reports) == (3, [])
    await getattr(bus, ending)()
    assert bus.outstanding == 0
    offsets = [one.offset for one in reports if isinstance(one, Report)]
    assert offsets == [*range(offsets[0], offsets[0] + 3)]
    await bus.stop()


async def test_what_was_posted_when_it_failed_is_told_as_unknown(settings: Settings) -> None:
    bus = Bus(settings.kafka, client_id="test", linger_ms=4_000, on_fatal=lambda _: None)
    await bus.start()
    reports: list[Report | AppendError] = []
    bus.post(TOPIC, b"v", b"k", (), reports.append)
    assert bus._producer is not None
    fail_for_good(bus._producer)
    await bus.stop()
    assert [one.outcome for one in reports if isinstance(one, AppendError)] == ["unknown"]
    assert len(reports) == 1


async def test_what_was_under_way_when_it_failed_is_answered_as_unknown(settings: Settings) -> None:
    """Records in the queue may be waiting to be sent again: whether they are in the log is not known."""
    bus = Bus(settings.kafka, client_id="test", linger_ms=4_000)
    await bus.start()
    waiting = [bus.send(TOPIC, None, b"k") for _ in range(3)]
    assert bus._producer is not None
    fail_for_good(bus._producer)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(answer, "outcome", answer) for answer in answers] == ["unknown"] * 3
    await bus.stop()


async def test_the_appender_goes_on_with_a_new_producer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.append.EVENTS_INGESTED", TOPIC)
    appender = Appender(lambda on_fatal: Bus(settings.kafka, client_id="test", on_fatal=on_fatal), in_flight_max=10)
    await appender.start()
    first = appender.bus
    assert first._producer is not None
    fail_for_good(first._producer)
    await holds(lambda: appender.rebuilding)
    with pytest.raises(ProblemError) as caught:
        await appender.append(ORGANIZATION, b"{}", ())
    assert caught.value.members == {"outcome": "not_appended"}
    await holds(lambda: not appender.rebuilding and appender.bus.ready)
    assert (await appender.append(ORGANIZATION, b"{}", ())).topic == TOPIC
    assert appender.bus is not first
    await appender.stop()


async def test_a_producer_that_must_leave_no_hole_ends_its_process(settings: Settings, deaths: list[str]) -> None:
    bus = Bus(settings.kafka, client_id="test", gapless=True)
    await bus.start()
    assert bus._producer is not None
    fail_for_good(bus._producer)
    await holds(lambda: bool(deaths))
    assert "the producer failed" in deaths[0]
    await bus.stop()


async def test_a_producer_that_must_leave_no_hole_ends_its_process_when_nothing_is_delivered(deaths: list[str]) -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    bus = Bus(nowhere, client_id="test", gapless=True, stall_timeout_s=0.3)
    await bus.start()
    waiting = bus.send(TOPIC, None, b"k")
    await holds(lambda: bool(deaths))
    assert "no record was delivered" in deaths[0]
    assert not waiting.done()
    bus._outstanding.clear()
    await bus.stop()


async def test_reports_come_without_a_thread_that_polls(settings: Settings) -> None:
    before = set(threading.enumerate())
    bus = Bus(settings.kafka, client_id="test")
    await bus.start()
    async with asyncio.timeout(30):
        reports = await asyncio.gather(*(bus.send(TOPIC, b"%d" % n, b"k") for n in range(500)))
    assert [report.offset for report in reports] == list(range(reports[0].offset, reports[0].offset + 500))
    assert bus.outstanding == 0
    assert set(threading.enumerate()) == before
    await bus.stop()


async def test_a_processors_producer_that_failed_for_good_ends_its_process(settings: Settings, deaths: list[str]) -> None:
    outputs = Outputs(settings.kafka, settings.processor, "test")
    outputs.start()
    fail_for_good(outputs._producer)
    await holds(lambda: bool(deaths))
    assert "the producer failed" in deaths[0]
    await outputs.stop()
