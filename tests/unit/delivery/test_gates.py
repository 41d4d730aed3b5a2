"""Gate, slots and budget in an event loop: who is let through, who waits, who is sent away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from delivery.deliver import _teaches
from delivery.endpoints import Endpoint
from delivery.gates import Admitted, Gate, Gates, Refused
from delivery.slots import Budget, Slots
from runtime.settings import DeliverySettings
from schemas import ids

ORGANIZATION = ids.organization_id(1, bytes(10))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def now_ms(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / 1000


def endpoint(number: int = 1, rate_per_minute: int | None = None, concurrency: int | None = None) -> Endpoint:
    made = ids.endpoint_id(number, bytes(10))
    return Endpoint(made, ORGANIZATION, "live", "http://x", None, (), rate_per_minute=rate_per_minute, concurrency=concurrency)


def gate(clock: Clock, of: Endpoint | None = None, **settings: float | list[float]) -> Gate:
    return Gates(DeliverySettings.model_validate(settings), clock, "g").of(of or endpoint())


async def admitted(one: Gate) -> Admitted:
    found = await one.enter(again=False)
    assert isinstance(found, Admitted), found
    return found


async def test_who_waits_gets_the_place_of_who_leaves_in_order() -> None:
    clock = Clock()
    one = gate(clock, endpoint(concurrency=1))
    first = await admitted(one)
    waiting = [asyncio.create_task(one.enter(again=False)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        assert not task.done()
        one.leave(first, True)
        await asyncio.wait([task], timeout=5)
        found = task.result()
        assert isinstance(found, Admitted)
        first = found
    one.leave(first, True)
    assert one.at_rest


async def test_who_is_cancelled_while_waiting_leaves_no_place_taken() -> None:
    clock = Clock()
    one = gate(clock, endpoint(concurrency=1))
    first = await admitted(one)
    waiting = [asyncio.create_task(one.enter(again=False)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    one.leave(first, True)  # hands its place to the next, which is cancelled before it learns of it
    waiting[1].cancel()
    await asyncio.wait(waiting, timeout=5)
    last = waiting[2].result()
    assert isinstance(last, Admitted)
    one.leave(last, None)
    assert one.at_rest


async def test_an_open_breaker_sends_everybody_away_and_lets_one_probe_through() -> None:
    clock = Clock()
    one = gate(clock, endpoint(concurrency=1), breaker_failures=1)
    first = await admitted(one)
    waiting = [asyncio.create_task(one.enter(again=False)) for _ in range(3)]
    await asyncio.sleep(0)
    assert one.leave(first, False).opened
    assert {type(found) for found in await asyncio.gather(*waiting)} == {Refused}
    assert await one.enter(again=False) == Refused("open", clock.now + 5_000)
    clock.now += 5_000
    probe, *others = await asyncio.gather(*(one.enter(again=True) for _ in range(4)))
    assert isinstance(probe, Admitted)
    assert probe.permit == "probe"
    assert all(isinstance(other, Refused) and other.why == "open" for other in others)
    assert one.leave(probe, True).closed
    assert isinstance(await one.enter(again=True), Admitted)


async def test_a_probe_that_tells_nothing_is_followed_by_another() -> None:
    clock = Clock()
    one = gate(clock, breaker_failures=1)
    one.leave(await admitted(one), False)
    clock.now += 5_000
    for _ in range(3):
        probe = await one.enter(again=True)
        assert isinstance(probe, Admitted)
        one.leave(probe, None)


async def test_what_exceeds_a_rate_comes_back_at_its_turn_and_is_let_through_then() -> None:
    clock = Clock()
    settings = DeliverySettings(delays_s=(1.0, 10.0))
    one = Gates(settings, clock, "g").of(endpoint(rate_per_minute=60))
    found = [await one.enter(again=False) for _ in range(10)]
    passed = [each for each in found if isinstance(each, Admitted)]
    refused = [each for each in found if isinstance(each, Refused)]
    assert len(passed) == 3  # two seconds' worth, and the one whose turn is now
    assert [each.until_ms for each in refused] == [clock.now + 1_000 * n for n in range(1, 8)]
    for each in passed:
        one.leave(each, True)
    for late in refused:
        assert late.until_ms is not None
        clock.now = late.until_ms
        back = await one.enter(again=True, turn=late.turn, turn_ms=late.until_ms)
        assert isinstance(back, Admitted)
        one.leave(back, True)


async def test_slow_attempts_give_quick_ones_their_places() -> None:
    slots, never = Slots(quick=2, slow=3, slow_after_s=0.02), asyncio.Event()

    async def hang() -> str:
        await never.wait()
        return "at last"

    async def quick() -> str:
        return "quick"

    hanging = [asyncio.create_task(slots.run(hang, slow=False)) for _ in range(3)]
    assert await asyncio.wait_for(slots.run(quick, slow=False), 5) == "quick"
    await asyncio.sleep(0.1)  # the third has changed places by now, as those before
    assert await slots.run(quick, slow=True) is None
    never.set()
    assert await asyncio.gather(*hanging) == ["at last"] * 3
    assert await slots.run(quick, slow=True) == "quick"


async def test_a_busy_worker_takes_no_more_until_it_has_places() -> None:
    slots, go = Slots(quick=2, slow=0, slow_after_s=5), asyncio.Event()
    tasks = [asyncio.create_task(slots.run(go.wait, slow=False)) for _ in range(4)]
    await asyncio.sleep(0)
    taking = asyncio.create_task(slots.eased())
    await asyncio.sleep(0.05)
    assert not taking.done()
    go.set()
    await asyncio.wait_for(asyncio.gather(taking, *tasks), 5)


async def test_waiting_for_the_worker_makes_no_endpoint_slow() -> None:
    clock = Clock()
    one = gate(clock, endpoint(concurrency=1))
    first = await admitted(one)
    clock.now += 60_000  # for a place
    assert not one.is_slow
    one.begin(first)
    clock.now += 60_000
    assert one.is_slow
    one.leave(first, True)


async def test_a_cancelled_attempt_is_cancelled_wherever_it_stands_and_its_place_is_free() -> None:
    slots, cancelled = Slots(quick=1, slow=1, slow_after_s=0.02), []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def quick() -> int:
        return 1

    for slow_already in (False, True):
        task = asyncio.create_task(slots.run(hang, slow=False))
        await asyncio.sleep(0.08 if slow_already else 0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert await slots.run(quick, slow=False) == 1
        assert await slots.run(quick, slow=True) == 1
    assert len(cancelled) == 2


async def test_a_budget_is_given_in_order_and_comes_back_from_the_cancelled() -> None:
    budget, order = Budget(10), []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def take(size: int, name: str) -> None:
        async with budget.of(size):
            order.append(name)
            entered.set()
            await leave.wait()

    tasks = [asyncio.create_task(take(size, name)) for size, name in ((8, "a"), (100, "b"), (8, "c"), (1, "d"))]
    await entered.wait()
    await asyncio.sleep(0)
    assert order == ["a"]  # nobody overtakes
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    await asyncio.sleep(0)
    assert order == ["a"]
    leave.set()
    await asyncio.wait_for(asyncio.gather(tasks[0], tasks[2], tasks[3]), 5)
    assert order == ["a", "c", "d"]
    async with budget.of(100):
        pass


def of_many(gates: Gates, number: int) -> Gate:
    return gates.of(endpoint(number, rate_per_minute=60))


async def test_gates_that_are_at_rest_are_forgotten_also_with_a_rate_and_a_noted_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.gates._GATES_MAX", 10)
    clock = Clock()
    many = Gates(DeliverySettings(breaker_failures=1), clock, "g")
    for number in range(10):
        one = of_many(many, number)
        one.leave(await admitted(one), number != 3)
    assert isinstance(await of_many(many, 3).enter(again=False), Refused)
    under_way = await admitted(of_many(many, 5))
    of_many(many, 4).failing_since_ms = clock.now  # not noted yet
    noted = of_many(many, 6)
    noted.failing_since_ms, noted.noted = clock.now, True
    kept = {number: of_many(many, number) for number in range(10)}
    clock.now += 4_000  # all bursts are whole again, the breaker is still open
    for number in range(200, 210):
        of_many(many, number)
    assert {number for number in (3, 4, 5) if of_many(many, number) is kept[number]} == {3, 4, 5}
    assert of_many(many, 6) is not kept[6]
    assert of_many(many, 0) is not kept[0]
    kept[5].leave(under_way, True)


async def test_a_turn_that_was_handed_out_is_honoured_whenever_gates_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.gates._GATES_MAX", 1)
    clock = Clock()
    many = Gates(DeliverySettings(delays_s=(1.0, 10.0)), clock, "g")
    one = of_many(many, 1)
    found = [await one.enter(again=False) for _ in range(6)]
    last = found[-1]
    assert isinstance(last, Refused)
    assert last.until_ms is not None
    for each in found:
        if isinstance(each, Admitted):
            one.leave(each, True)
    clock.now = last.until_ms + 2_000  # the last moment of its grace
    of_many(many, 2)
    assert isinstance(await of_many(many, 1).enter(again=True, turn=last.turn, turn_ms=last.until_ms), Admitted)
    assert of_many(many, 1) is one


async def test_work_that_can_wait_is_told_when_breaker_and_rate_let_an_attempt_through() -> None:
    clock = Clock()
    one = gate(clock, endpoint(rate_per_minute=60), breaker_failures=1, breaker_open_s=[30.0])
    assert one.free_at_ms() <= clock.now
    while one.free_at_ms() <= clock.now:  # what the rate lets through at once
        one.leave(await admitted(one), None)
    assert 0 < one.free_at_ms() - clock.now <= 1_000
    clock.now = one.free_at_ms()
    assert one.leave(await admitted(one), False).opened
    assert one.free_at_ms() == clock.now + 30_000


def test_a_replays_failure_opens_no_breaker_and_is_heard_as_a_probe() -> None:
    def made(cause: str | None, outcome: str) -> Any:
        return SimpleNamespace(cause=cause, outcome=outcome)

    attempt, probe = Admitted(1, "attempt"), Admitted(2, "probe")
    assert [_teaches(made("replay", "failed"), one) for one in (attempt, probe)] == [None, False]
    assert [_teaches(made("replay", "delivered"), one) for one in (attempt, probe)] == [True, True]
    assert [_teaches(made(cause, "failed"), attempt) for cause in (None, "retry", "recover", "redrive")] == [False] * 4


async def test_a_place_given_to_who_gives_up_just_then_goes_to_the_next() -> None:
    slots = Slots(1, 0, 60.0)
    over = asyncio.Event()

    async def work() -> str:
        await over.wait()
        asyncio.get_running_loop().call_soon(second.cancel)  # it is given the place before that, and begins after it
        return "made"

    first = asyncio.create_task(slots.run(work, slow=False))
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(slots.run(work, slow=False)) for _ in range(2))
    await asyncio.sleep(0)
    assert slots.under_way == 3
    over.set()
    assert await first == "made"
    assert await asyncio.wait_for(third, 5) == "made"
    assert second.cancelled()
    assert slots.under_way == 0


async def test_who_has_waited_too_long_for_a_turn_is_sent_away_in_time_and_leaves_no_trace() -> None:
    one = gate(Clock(), endpoint(concurrency=1), endpoint_wait_s=0.05)
    first = await admitted(one)
    began_s = asyncio.get_running_loop().time()
    found = await asyncio.wait_for(asyncio.gather(*(one.enter(again=False) for _ in range(3))), 5)
    assert asyncio.get_running_loop().time() - began_s >= 0.1
    assert found == [Refused("full")] * 3
    one.leave(first, True)
    assert one.at_rest
    one.leave(await admitted(one), True)
