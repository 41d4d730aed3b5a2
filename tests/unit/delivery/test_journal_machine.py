"""Delivery under crashes, against the log itself.

What runs is the real partition worker, with journal, lanes, watermark and gates, over a log that lives in memory and an endpoint that fails
as told. It may die at any record it sends; breakers open, turns are waited for and our own network is down, so deliveries are put off.
What may be asserted: each attempt number is journalled once and never early, each leg of a retry is on its delay topic once, the chain
always ends in a delivery or a dead letter, and a dead letter is told of. What may never be asserted: how often a POST was made.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from delivery import attempt, operational
from delivery.context import Context
from delivery.delays import choose, due_ms
from delivery.endpoints import Endpoint
from delivery.fifo_places import Found
from delivery.journal import Journal, encode_checkpoint, places, read_checkpoint
from delivery.lanes import Lane
from delivery.partition import PartitionWorker
from delivery.tails import learn
from delivery.watermark import Watermark
from runtime.kafka import Report
from runtime.lifecycle import StallGuard
from runtime.settings import DeliverySettings, Settings
from schemas import codec, ids, keys
from schemas.deliveries import Attempted, Retry
from schemas.events import Ingested
from schemas.ids import EventId
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, DELIVERIES_REQUESTS, EVENTS_ACCEPTED, EVENTS_INGESTED, retry_topic

DELAYS_S = (0.5, 2.0)
SCHEDULE_S = (0.5, 3.0)
ORGANIZATION = ids.organization_id(1, bytes(10))
ENDPOINTS = [ids.endpoint_id(n, bytes(10)) for n in (1, 2)]
SOURCES = [EVENTS_ACCEPTED, DELIVERIES_REQUESTS, *map(retry_topic, DELAYS_S)]


class Died(BaseException):
    """The process dies here."""


class Log:
    """The broker: one partition of every topic, and the committed offsets."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.committed: dict[str, tuple[int, str]] = dict.fromkeys(SOURCES, (0, ""))
        self.now_ms = 1_000_000

    def append(self, topic: str, value: bytes) -> int:
        records = self.topics.setdefault(topic, [])
        records.append(Record(len(records), self.now_ms, keys.record_key(ORGANIZATION), value, ()))
        return len(records) - 1

    def records(self, topic: str) -> list[Record]:
        return self.topics.get(topic, [])


class Clock:
    def __init__(self, log: Log) -> None:
        self._log = log

    def now_ms(self) -> int:
        return self._log.now_ms

    def monotonic_s(self) -> float:
        return self._log.now_ms / 1000


class DyingBus:
    """Appends at once. Dies before or after the n-th record it is given."""

    def __init__(self, log: Log, lives: int, *, after: bool) -> None:
        self._log = log
        self._lives = lives
        self._after = after
        self.dead = False

    def send(self, topic: str, value: bytes, _key: bytes, **_: Any) -> asyncio.Future[Report]:
        future: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._lives -= 1
        if self.dead or (self._lives <= 0 and not self._after):
            self.dead = True
            return future  # never resolved: the process is gone
        offset = self._log.append(topic, value)
        if self._lives <= 0:
            self.dead = True
            return future
        future.set_result(Report(topic, 0, offset, self._log.now_ms))
        return future


class Known:
    """Endpoints that always exist, all with one rate."""

    def __init__(self, rate_per_minute: int | None) -> None:
        self._rate_per_minute = rate_per_minute

    async def of(self, owners: Any) -> dict[tuple[str, str], list[Endpoint]]:
        return {owner: [await self.get(e) for e in ENDPOINTS] for owner in owners}

    async def get(self, endpoint_id: Any, **_: bool) -> Endpoint:
        url = f"http://receiver/{endpoint_id}"
        return Endpoint(
            endpoint_id, ORGANIZATION, "live", url, None, (b"x" * 24,), rate_per_minute=self._rate_per_minute, schedule_s=SCHEDULE_S
        )

    async def disable_gone(self, _: Any) -> bool:
        return True

    async def note_failing(self, *_: Any) -> None: ...

    async def note_recovered(self, _: Any) -> None: ...


def read_tail(log: Log, checkpoint: str, memory_ms: int = 0) -> Journal:
    """What `delivery.tails` does, from memory."""
    journal = Journal(memory_ms)
    topics = [DELIVERIES_ATTEMPTS, *map(retry_topic, DELAYS_S), DELIVERIES_DEAD, DELIVERIES_REQUESTS]
    for topic, begin in places(read_checkpoint(checkpoint), dict.fromkeys(topics, 0)).items():
        journal.read_until(topic, len(log.records(topic)))
        for record in log.records(topic)[begin:]:
            learn(journal, topic, record.offset, record.value, log.now_ms)
    return journal


async def live(
    log: Log,
    lives: int,
    *,
    after: bool,
    commits: bool,
    statuses: Sequence[int | str],
    rate_per_minute: int | None,
    monkeypatch: pytest.MonkeyPatch,
    missed: Any = None,
    replays: Any = None,
    configure: Callable[[Context], None] = lambda _: None,
) -> None:
    """One life of the partition's owner: take over, work until nothing moves or it dies, commit now and then."""
    made = Settings(delivery=DeliverySettings(delays_s=DELAYS_S, journal_memory_s=0.001, breaker_failures=2, breaker_open_s=(0.5, 1.0)))
    clock, bus = Clock(log), DyingBus(log, lives, after=after)
    outcomes = iter(statuses)

    async def post(*_: Any) -> attempt.Result:
        outcome = next(outcomes, 204)
        if isinstance(outcome, str):
            return attempt.Result(None, outcome, b"")
        return attempt.Result(outcome, None if outcome == 204 else "status", b"")

    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        """Time passes when everybody waits for it."""
        await real_sleep(0)
        log.now_ms += max(1, round(seconds * 1000))

    monkeypatch.setattr("delivery.partition.asyncio.sleep", sleep)
    guard = StallGuard(1e9)
    context = Context(
        made, clock, bus, Known(rate_per_minute), SimpleNamespace(post=post), guard,  # type: ignore[arg-type]
        {retry_topic(d): d for d in DELAYS_S}, "w", missed, replays, None,  # type: ignore[arg-type]
    )  # fmt: skip
    configure(context)
    checkpoint = read_checkpoint(log.committed[EVENTS_ACCEPTED][1])
    lanes = {
        topic: Lane(
            topic,
            0,
            Watermark(offset, checkpoint.h if topic == EVENTS_ACCEPTED else -1),
            1_000,
            bytes_in_flight_max=1_000_000,
            pause=lambda: None,
            resume=lambda: None,
        )
        for topic, (offset, _) in log.committed.items()
    }
    ends = {topic: len(log.records(topic)) for topic in SOURCES}
    worker = PartitionWorker(context, 0, lanes, read_tail(log, log.committed[EVENTS_ACCEPTED][1]), ends, Found())
    worker.start()
    given = {topic: offset for topic, (offset, _) in log.committed.items()}
    idle = 0
    while idle < 60 and not bus.dead:
        before = sum(map(len, log.topics.values()))
        for topic, lane in lanes.items():
            if fresh := log.records(topic)[given[topic] :]:
                lane.add(fresh)
                given[topic] += len(fresh)
        await real_sleep(0)
        idle = 0 if sum(map(len, log.topics.values())) != before else idle + 1
        if commits and not bus.dead:
            worker.journal.forget(clock.now_ms(), lambda s: worker.caught_up() if s is None else worker.is_over(s))
            for topic, lane in lanes.items():
                metadata = encode_checkpoint(worker.journal.checkpoint(lane.watermark.highest)) if topic == EVENTS_ACCEPTED else ""
                log.committed[topic] = (lane.watermark.next_offset, metadata)
    await worker.stop(0.0)
    monkeypatch.undo()


def accept(log: Log, number: int) -> EventId:
    event = Ingested(
        v=1, id=ids.event_id(number, bytes(10)), organization=ORGANIZATION, mode="live", type="t", received_at_ms=1,
        fingerprint=keys.fingerprint("t", None, b"1"), payload=Raw(b"1"),
    )  # fmt: skip
    log.append(EVENTS_ACCEPTED, codec.encode_accepted(codec.encode(event), number, 1))
    return event.id


@given(
    events=st.integers(1, 3),
    deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans()), max_size=5),
    statuses=st.lists(st.sampled_from([204, 500, "timeout", 410, "local"]), max_size=30),
    rate_per_minute=st.sampled_from([None, 60]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_crash_repeats_a_journalled_attempt_or_forks_a_retry(
    events: int,
    deaths: list[tuple[int, bool, bool]],
    statuses: list[int | str],
    rate_per_minute: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    accepted = [accept(log, number) for number in range(events)]

    def one_life(lives: int, after: bool, commits: bool, outcomes: Sequence[int | str]) -> None:
        asyncio.run(
            live(
                log, lives, after=after, commits=commits, statuses=outcomes, rate_per_minute=rate_per_minute, monkeypatch=monkeypatch,
            )
        )  # fmt: skip

    for lives, after, commits in deaths:
        one_life(lives, after, commits, statuses)
    one_life(1_000_000, True, True, [])

    journal = [codec.journal.decode(record.value) for record in log.records(DELIVERIES_ATTEMPTS)]
    attempts = [entry for entry in journal if isinstance(entry, Attempted)]
    twice = [key for key, count in Counter((a.event_id, a.endpoint_id, a.attempt) for a in attempts).items() if count > 1]
    assert not twice
    tasks = [codec.retry_task.decode(record.value) for delay in DELAYS_S for record in log.records(retry_topic(delay))]
    forked = [key for key, count in Counter((t.event_id, t.endpoint_id, t.attempt, t.hop) for t in tasks).items() if count > 1]
    assert not forked
    dead = Counter((d.event_id, d.endpoint_id) for d in (codec.dead_letter.decode(r.value) for r in log.records(DELIVERIES_DEAD)))
    for event_id in accepted:
        for endpoint in ENDPOINTS:
            mine = sorted((a for a in attempts if (a.event_id, a.endpoint_id) == (event_id, endpoint)), key=lambda a: a.attempt)
            assert [a.attempt for a in mine] == list(range(1, len(mine) + 1))
            assert mine, "never attempted"
            assert (mine[-1].outcome == "delivered") + dead[event_id, endpoint] == 1
            for earlier, later in pairwise(mine):
                assert isinstance(earlier.next, Retry)
                assert later.started_at_ms >= earlier.next.not_before_ms
    told = {event.id: event for event in (codec.ingested.decode(record.value) for record in log.records(EVENTS_INGESTED))}
    assert Counter(event.type for event in told.values())[operational.DEAD_LETTER] == sum(dead.values())


def test_details_of_a_failed_attempt_are_kept_no_longer_than_it_takes_to_write_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    log, settled = Log(), list[tuple[EventId, int]]()
    event_id = accept(log, 0)
    monkeypatch.setattr(Journal, "settle", lambda _, key: settled.append((key[0], key[2])))
    statuses = [500] * 2 * (len(SCHEDULE_S) + 1)
    asyncio.run(live(log, 1_000_000, after=True, commits=False, statuses=statuses, rate_per_minute=None, monkeypatch=monkeypatch))
    assert len(log.records(DELIVERIES_DEAD)) == len(ENDPOINTS)
    assert Counter(settled) == {(event_id, attempt): len(ENDPOINTS) for attempt in range(1, len(SCHEDULE_S) + 2)}


def test_a_delay_is_the_largest_that_fits_and_nothing_waits_longer_than_its_topic() -> None:
    assert choose((5, 30, 120), 119_999) == 30
    assert choose((5, 30, 120), 120_000) == 120
    assert choose((5, 30, 120), 4_000) == 5
    assert due_ms(1_000_000, 0, 30) == 30_000
    assert due_ms(10_000, 0, 30) == 10_000


@given(st.permutations(list(range(12))))
def test_the_watermark_never_passes_an_unfinished_offset(order: list[int]) -> None:
    watermark = Watermark(0)
    for offset in range(12):
        watermark.start(offset, 100 + offset)
    done: set[int] = set()
    for offset in order:
        watermark.done(offset)
        done.add(offset)
        first_open = next((o for o in range(12) if o not in done), 12)
        assert watermark.next_offset == first_open
        assert watermark.highest == (99 + first_open if first_open else -1)
