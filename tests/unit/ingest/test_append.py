from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from ingest.append import Appender
from runtime.kafka import AppendError, Bus, Outcome, Report
from schemas.ids import OrganizationId
from schemas.problems import ProblemError

ORGANIZATION = OrganizationId("org_1")
REPORT = Report("events.ingested", 0, 7, 1_000)


class Producer:
    """A `Bus` whose answers are chosen."""

    def __init__(self, on_fatal: Callable[[str], None]) -> None:
        self.on_fatal = on_fatal
        self.outstanding = 0
        self.answer: Report | AppendError = REPORT
        self.running = False
        self.stopping: asyncio.Event | None = None

    async def start(self) -> None:
        self.running = True

    def send(self, *_: Any, **__: Any) -> asyncio.Future[Report]:
        future: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        if isinstance(self.answer, AppendError):
            future.set_exception(self.answer)
        else:
            future.set_result(self.answer)
        return future

    async def stop(self) -> None:
        if self.stopping is not None:
            await self.stopping.wait()
        self.running = False


class Producers(list[Producer]):
    def make(self, on_fatal: Callable[[str], None]) -> Bus:
        self.append(Producer(on_fatal))
        return cast(Bus, self[-1])


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> Producers:
    monkeypatch.setattr("ingest.append._REBUILD_PAUSE_S", 0.0)
    return Producers()


async def appended(appender: Appender) -> Report:
    return await appender.append(ORGANIZATION, b"{}", ())


async def refused(appender: Appender) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await appended(appender)
    return caught.value


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize(("outcome", "slug"), [("not_appended", "not-appended"), ("unknown", "outcome-unknown")])
async def test_a_failed_append_says_whether_the_event_may_be_in_the_log(outcome: Outcome, slug: str, producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    producers[0].answer = AppendError(outcome, "why")
    error = await refused(appender)
    assert (error.problem.slug, error.problem.status, error.members) == (slug, 503, {"outcome": outcome})
    assert int(error.headers["Retry-After"]) > 0


async def test_what_is_beyond_the_limit_in_flight_is_refused_before_it_is_sent(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    producers[0].outstanding = 10
    assert (await refused(appender)).members["outcome"] == "not_appended"
    producers[0].outstanding = 9
    assert await appended(appender) == REPORT


async def test_a_producer_that_failed_for_good_is_replaced_and_stopped(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    await appender.start()
    producers[0].on_fatal("fenced")
    await settled(lambda: len(producers) == 2 and not producers[0].running)
    assert appender.bus is cast(Bus, producers[1])
    assert producers[1].running


async def test_it_says_so_while_it_has_no_producer_that_works(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    await appender.start()
    assert not appender.rebuilding
    producers[0].on_fatal("fenced")
    assert appender.rebuilding
    await settled(lambda: not producers[0].running)
    assert producers[1].running
    assert not appender.rebuilding


async def test_a_failure_of_a_producer_that_is_gone_already_is_no_rebuilding(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    await appender.start()
    producers[0].on_fatal("fenced")
    await settled(lambda: not producers[0].running)
    producers[0].on_fatal("fenced")
    assert not appender.rebuilding


async def test_a_producer_that_fails_while_the_one_before_it_is_being_stopped_is_replaced_too(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    await appender.start()
    producers[0].stopping = asyncio.Event()
    producers[0].on_fatal("fenced")
    await settled(lambda: appender.bus is not cast(Bus, producers[0]))
    producers[1].on_fatal("fenced again")
    await settled(lambda: len(producers) == 3 and appender.bus is cast(Bus, producers[2]))
    producers[0].stopping.set()
    await settled(lambda: not producers[0].running and not producers[1].running)
    assert producers[2].running


async def test_a_failure_told_twice_replaces_once(producers: Producers) -> None:
    appender = Appender(producers.make, in_flight_max=10)
    await appender.start()
    producers[0].on_fatal("fenced")
    producers[0].on_fatal("fenced")
    await settled(lambda: not producers[0].running)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(producers) == 2
