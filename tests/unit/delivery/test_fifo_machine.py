"""FIFO endpoints under crashes, against the log itself: the real partition worker over a log in memory (see `test_journal_machine`).

It may die at any record it sends, positions among them, with an endpoint that fails as told, a rate, and a breaker that opens. What may be
asserted: attempts are journalled once each, in the order of the events, never early, and every event is delivered or given up; a receiver
never sees an event before those in front of it are over, whatever was posted twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery import attempt
from delivery.context import Context
from delivery.endpoints import Endpoint
from delivery.fifo import Fifo
from delivery.fifo_pages import Page
from delivery.fifo_places import Found
from delivery.fifo_runner import Runner
from delivery.journal import encode_checkpoint, places, read_checkpoint
from delivery.lanes import Lane
from delivery.partition import PartitionWorker
from delivery.watermark import Watermark
from runtime.lifecycle import StallGuard
from runtime.settings import DeliverySettings, Settings
from schemas import codec, ids
from schemas.deliveries import Attempted, Planned, Retry
from schemas.ids import EndpointId, EventId
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, DELIVERIES_FIFO, EVENTS_ACCEPTED, retry_topic
from tests.unit.delivery.test_journal_machine import DELAYS_S, ORGANIZATION, SCHEDULE_S, SOURCES, Clock, DyingBus, Log, accept, read_tail

#: Longer than a position takes to be written, shorter than what a run takes.
_MEMORY_MS = 2_000
PLAIN, ORDERED, BLOCKING = (ids.endpoint_id(n, bytes(10)) for n in (1, 2, 3))


class Known:
    """One endpoint without an order, one with, one that blocks. A change takes longer than the journal remembers what it need not."""

    def __init__(self, rate_per_minute: int | None) -> None:
        self._rate_per_minute = rate_per_minute

    def _one(self, endpoint_id: EndpointId) -> Endpoint:
        return Endpoint(
            endpoint_id, ORGANIZATION, "live", f"http://receiver/{endpoint_id}", None, (b"x" * 24,), schedule_s=SCHEDULE_S,
            rate_per_minute=self._rate_per_minute, fifo=endpoint_id != PLAIN, fifo_block=endpoint_id == BLOCKING,
        )  # fmt: skip

    async def of(self, owners: Any) -> dict[tuple[str, str], list[Endpoint]]:
        return {owner: [self._one(e) for e in (PLAIN, ORDERED, BLOCKING)] for owner in owners}

    async def get(self, endpoint_id: EndpointId, **_: bool) -> Endpoint:
        return self._one(endpoint_id)

    async def there(self, endpoint_ids: Sequence[EndpointId]) -> dict[EndpointId, Endpoint]:
        return {one: self._one(one) for one in endpoint_ids}

    async def changed(self, *_args: Any) -> bool:
        for _ in range(5):
            await asyncio.sleep(_MEMORY_MS / 1000)
        return True

    disable_gone = note_failing = note_recovered = note_blocked = note_unblocked = changed


class MemoryPages:
    """`delivery.fifo_pages` from memory, in pages of two."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def read(self, topic: str, _partition: int, begin: int, end: int, wanted: Any, *, records_max: int, bytes_max: int) -> Page:
        found: list[Record] = []
        offset = begin
        while offset < end and len(found) < min(2, records_max):
            record = self._log.records(topic)[offset]
            offset += 1
            if wanted(record.key, record.value, record.offset):
                found.append(record)
        return Page(found, offset)


def find(log: Log, checkpoint: str) -> Found:
    """What `delivery.tails` finds, from memory."""
    found = Found()
    journal = log.records(DELIVERIES_ATTEMPTS)
    found.begin = places(read_checkpoint(checkpoint), {DELIVERIES_ATTEMPTS: 0})[DELIVERIES_ATTEMPTS]
    found.end = len(journal)
    for record in journal[found.begin :]:
        if isinstance(entry := codec.journal.decode(record.value), Planned):
            found.add_plan(record.offset, entry)
    for record in log.records(DELIVERIES_FIFO):
        position = codec.fifo_position.decode(record.value)
        found.add_position(position.endpoint_id, position)
    return found


class Posts:
    """What receivers see: (endpoint, event) in order. `statuses` are answered one after the other, then 204."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def sender(self, statuses: Sequence[int | str]) -> Any:
        outcomes = iter(statuses)

        async def post(url: str, _content: bytes, headers: dict[str, str], _deadline_s: float) -> attempt.Result:
            self.seen.append((url.rpartition("/")[2], headers["webhook-id"]))
            outcome = next(outcomes, 204)
            if isinstance(outcome, str):
                return attempt.Result(None, outcome, b"")
            return attempt.Result(outcome, None if outcome == 204 else "status", b"")

        return SimpleNamespace(post=post)


async def live(
    log: Log,
    posts: Posts,
    lives: int,
    *,
    after: bool,
    commits: bool,
    statuses: Sequence[int | str],
    rate: int | None,
    patch: pytest.MonkeyPatch,
) -> None:
    """One life of the partition's owner: take over, work until nothing moves or it dies, commit now and then."""
    delivery = DeliverySettings(
        delays_s=DELAYS_S, journal_memory_s=0.001, breaker_failures=2, breaker_open_s=(0.5, 1.0), fifo_blocked_pause_s=4.0
    )
    made = Settings(delivery=delivery)
    clock, bus, real_sleep = Clock(log), DyingBus(log, lives, after=after), asyncio.sleep

    async def sleep(seconds: float) -> None:
        """Time passes when everybody waits for it."""
        await real_sleep(0)
        log.now_ms += max(1, round(seconds * 1000))

    async def runner_sleep(runner: Runner, seconds: float | None) -> None:
        if seconds is None:
            runner._wake.clear()
            await runner._wake.wait()
        else:
            await sleep(seconds)

    async def look(_: Fifo) -> None:
        """Nothing about the endpoints changes."""

    patch.setattr("delivery.partition.asyncio.sleep", sleep)
    patch.setattr(Runner, "_sleep", runner_sleep)
    patch.setattr(Fifo, "_look", look)
    topic_delays = {retry_topic(d): d for d in DELAYS_S}
    sender, guard = posts.sender(statuses), StallGuard(1e9)
    context = Context(made, clock, bus, Known(rate), sender, guard, topic_delays, "w", None, None, None)  # type: ignore[arg-type]
    context.pages = MemoryPages(log)  # type: ignore[assignment]
    checkpoint = log.committed[EVENTS_ACCEPTED][1]
    lanes = {
        topic: Lane(topic, 0, Watermark(offset, read_checkpoint(checkpoint).h if topic == EVENTS_ACCEPTED else -1), 1_000,
                    bytes_in_flight_max=1_000_000, pause=lambda: None, resume=lambda: None)
        for topic, (offset, _) in log.committed.items()
    }  # fmt: skip
    ends = {topic: len(log.records(topic)) for topic in SOURCES}
    worker = PartitionWorker(context, 0, lanes, read_tail(log, checkpoint, _MEMORY_MS), ends, find(log, checkpoint))
    worker.start()
    given = {topic: offset for topic, (offset, _) in log.committed.items()}
    idle = 0
    while idle < 80 and not bus.dead:
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
    patch.undo()


@given(
    events=st.integers(1, 4),
    deaths=st.lists(st.tuples(st.integers(1, 25), st.booleans(), st.booleans()), max_size=5),
    statuses=st.lists(st.sampled_from([204, 204, 500, "timeout", 410, "local"]), max_size=30),
    rate=st.sampled_from([None, 60]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_crash_takes_a_fifo_endpoint_out_of_order_or_leaves_an_event_out(
    events: int, deaths: list[tuple[int, bool, bool]], statuses: list[int | str], rate: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, posts = Log(), Posts()
    accepted = [accept(log, number) for number in range(events)]
    for lives, after, commits in deaths:
        asyncio.run(live(log, posts, lives, after=after, commits=commits, statuses=statuses, rate=rate, patch=monkeypatch))
    asyncio.run(live(log, posts, 1_000_000, after=True, commits=True, statuses=[], rate=rate, patch=monkeypatch))

    attempts = [e for e in (codec.journal.decode(r.value) for r in log.records(DELIVERIES_ATTEMPTS)) if isinstance(e, Attempted)]
    dead = Counter((d.event_id, d.endpoint_id) for d in (codec.dead_letter.decode(r.value) for r in log.records(DELIVERIES_DEAD)))
    tasks = [codec.retry_task.decode(record.value) for delay in DELAYS_S for record in log.records(retry_topic(delay))]
    assert not [task for task in tasks if task.endpoint_id != PLAIN], "it went through a delay topic"
    place = {event_id: n for n, event_id in enumerate(accepted)}
    for endpoint_id in (ORDERED, BLOCKING):
        seen = [place[EventId(event_id)] for endpoint, event_id in posts.seen if endpoint == endpoint_id]
        assert seen == sorted(seen), "the receiver saw an event before one in front of it was over"
        made = [a for a in attempts if a.endpoint_id == endpoint_id]
        order = [(place[a.event_id], a.attempt) for a in made]
        assert order == sorted(set(order))
        assert len(seen) <= len(made) + len(deaths) + statuses.count("local") * (len(deaths) + 1), "more than one repeated post per death"
        for event_id in accepted:
            mine = [a for a in made if a.event_id == event_id]
            assert [a.attempt for a in mine] == list(range(1, len(mine) + 1))
            assert mine, "never attempted"
            assert (mine[-1].outcome == "delivered") + dead[event_id, endpoint_id] == 1
            for earlier, later in pairwise(mine):
                assert isinstance(earlier.next, Retry)
                assert later.started_at_ms >= earlier.next.not_before_ms
    assert not any(endpoint_id == BLOCKING for _, endpoint_id in dead), "it blocks, and gave one up"
