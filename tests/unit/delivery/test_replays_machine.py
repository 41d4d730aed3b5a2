"""Replays under crashes, pauses and calls that are made twice, against the log itself: as `test_rounds_machine`.

What may be asserted: every event of the range that the endpoint takes has its attempts once and in order, ends once, and nothing else is
sent under the replay's name; and the control plane knows in the end how much that was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery.context import Context
from delivery.fifo_pages import Page, Wanted
from delivery.replay_state import Look
from schemas import codec, ids
from schemas.deliveries import FIRST_ROUND, Attempted, Replay
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, DELIVERIES_REQUESTS, EVENTS_ACCEPTED
from tests.unit.delivery.test_journal_machine import ENDPOINTS, ORGANIZATION, Log, accept, live

ROUND = ids.round_id(7, bytes(10))
PAGE = 2


class LogPages:
    """What `delivery.fifo_pages` reads, of a log in memory."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def read(
        self, topic: str, _partition: int, begin: int, end: int, wanted: Wanted, *, records_max: int, bytes_max: int
    ) -> Page:  # fmt: skip
        found: list[Record] = []
        offset = begin
        for record in self._log.records(topic)[begin:end]:
            if len(found) >= records_max:
                break
            offset = record.offset + 1
            if wanted(record.key, record.value, record.offset):
                found.append(record)
        return Page(found, offset)


class Control:
    """The rows of `control.replays`, as the statements in `delivery/sql` change them. It outlives every crash."""

    def __init__(self, log: Log, replay: Replay, pauses: list[int]) -> None:
        self._log = log
        self.state_, self.next, self.waiting = "running", replay, True
        self.ended: str | None = None
        self._pauses = pauses
        self._looks = self._asked = 0
        self.bus: Any = None

    async def _alive(self) -> None:
        if self.bus.dead:
            await asyncio.Event().wait()

    async def look(self, _: Replay) -> Look:
        await self._alive()
        self._looks += 1
        if self._looks in self._pauses and self.ended is None:
            self.state_ = "paused"
        return Look(self.state_, 1_000.0, self.next.page, self.ended)

    async def state(self, _: Any) -> str:
        """Asked by retries, which would wait for ever: now and then the replay is resumed when they ask."""
        await self._alive()
        self._asked += 1
        state = self.state_
        if state == "paused" and self._asked % 4 == 0:
            self.resume(self._log)
        return state

    async def begin(self, replay: Replay) -> None:
        await self._alive()
        if self.next.page == replay.page:
            self.waiting = False

    async def progress(self, following: Replay) -> None:
        await self._alive()
        if self.next.page < following.page and self.ended is None:
            self.next, self.waiting = following, False

    async def passed(self, following: Replay) -> None:
        await self._alive()
        if self.next.page < following.page and self.ended is None:
            self.next, self.waiting = msgspec.structs.replace(self.next, page=following.page), False

    async def park(self, following: Replay) -> bool:
        await self._alive()
        if self.state_ != "paused" or self.next.page >= following.page or self.ended is not None:
            return False
        self.next, self.waiting = following, True
        return True

    async def end(self, following: Replay, why: Any) -> None:
        await self._alive()
        if self.ended is None:
            self.next, self.waiting, self.ended = following, False, why

    def resume(self, log: Log, *, times: int = 1) -> None:
        """As `access.replays.change` and what follows it."""
        self.state_ = "running"
        if self.waiting and self.ended is None:
            for _ in range(times):
                log.append(DELIVERIES_REQUESTS, codec.encode(self.next))


@given(
    events=st.integers(1, 7),
    copies=st.sets(st.integers(0, 6)),
    deaths=st.lists(st.tuples(st.integers(1, 25), st.booleans(), st.booleans(), st.booleans()), max_size=6),
    statuses=st.lists(st.sampled_from([204, 204, 500, 500, 410, "timeout", "local"]), max_size=40),
    pauses=st.lists(st.integers(1, 12), max_size=3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_crash_and_no_pause_loses_an_event_of_a_replay_or_repeats_an_attempt(
    events: int,
    copies: set[int],
    deaths: list[tuple[int, bool, bool, bool]],
    statuses: list[int | str],
    pauses: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    accepted = []
    for number in range(events):
        accepted.append(accept(log, number))
        if number in copies:
            accept(log, number)  # a copy that a crash of dedup left behind
    replay = Replay(
        v=1, round=ROUND, organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINTS[0], next_offset=0,
        until_offset=len(log.records(EVENTS_ACCEPTED)), since_ms=0, until_ms=1 << 40,
    )  # fmt: skip
    control = Control(log, replay, pauses)

    def configure(context: Context) -> None:
        control.bus = context.bus
        context.replay_pages = LogPages(log)  # type: ignore[assignment]
        monkeypatch.setattr("delivery.replay._EVENTS_MAX", PAGE)

    def one_life(lives: int, after: bool, commits: bool, outcomes: list[int | str]) -> None:
        asyncio.run(
            live(
                log, lives, after=after, commits=commits, statuses=outcomes, rate_per_minute=None, monkeypatch=monkeypatch, replays=control,
                configure=configure,
            )
        )  # fmt: skip

    one_life(1_000_000, True, True, [])  # what was delivered as it came
    control.resume(log)
    accept(log, events)  # accepted after the replay was asked for
    for lives, after, commits, twice in deaths:
        one_life(lives, after, commits, statuses)
        control.resume(log, times=2 if twice else 1)
    for _ in range(len(pauses) + 1):
        control.resume(log)
        one_life(1_000_000, True, True, [])

    attempts = [e for e in (codec.journal.decode(r.value) for r in log.records(DELIVERIES_ATTEMPTS)) if isinstance(e, Attempted)]
    assert max(Counter((a.event_id, a.endpoint_id, a.round, a.attempt) for a in attempts).values()) == 1
    mine = [a for a in attempts if a.round == ROUND]
    assert {(a.event_id, a.endpoint_id) for a in mine} == {(event_id, ENDPOINTS[0]) for event_id in accepted}
    assert {a.cause for a in mine} == {"replay"}
    letters = (codec.dead_letter.decode(record.value) for record in log.records(DELIVERIES_DEAD))
    dead = Counter(letter.event_id for letter in letters if letter.round == ROUND)
    for event_id in accepted:
        made = sorted((a for a in mine if a.event_id == event_id), key=lambda a: a.attempt)
        assert [a.attempt for a in made] == list(range(1, len(made) + 1))
        assert (made[-1].outcome == "delivered") + dead[event_id] == 1
    assert Counter(a.event_id for a in attempts if a.round == FIRST_ROUND and a.event_id in accepted) == dict.fromkeys(accepted, 2)
    assert (control.ended, control.next.begun) == ("done", events)
