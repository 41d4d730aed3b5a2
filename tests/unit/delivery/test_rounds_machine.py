"""Rounds that were asked for, under crashes, against the log itself: as `test_journal_machine`, with requests in the log beside events.

What may be asserted: each round has its attempts once and in order and ends once, and what was recovered was not on its way, nor taken,
nor recovered by another call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from delivery.missed import Found
from schemas import codec, ids
from schemas.deliveries import FIRST_ROUND, Attempted, Recovery, Redelivery, Requested, Retry
from schemas.events import Ingested
from schemas.ids import EndpointId, EventId, RoundId
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, DELIVERIES_REQUESTS, EVENTS_ACCEPTED, retry_topic
from tests.unit.delivery.test_journal_machine import DELAYS_S, ENDPOINTS, ORGANIZATION, Log, accept, live

LOOK = 2


class FoldedLog:
    """What `delivery.missed` reads, as a plain model over the log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def folded(self, _: int) -> int:
        return len(self._log.records(DELIVERIES_ATTEMPTS))

    def journal(self) -> list[object]:
        return [codec.journal.decode(record.value) for record in self._log.records(DELIVERIES_ATTEMPTS)]

    async def some(self, recovery: Recovery, after: EventId | None, count_max: int) -> Found:
        """Two at a time, so that a recovery has many steps."""
        attempts = [a for a in self.journal() if isinstance(a, Attempted) and a.endpoint_id == recovery.endpoint_id]
        seen = sorted({a.event_id for a in attempts if a.next is not None and not isinstance(a.next, Retry)})
        seen = [event for event in seen if event > (after or "")][: min(LOOK, count_max)]
        wanted = [event for event in seen if self._is_missed(event, recovery, [a for a in attempts if a.event_id == event])]
        return Found(wanted, seen[-1] if len(seen) == LOOK else None)

    def _is_missed(self, event: EventId, recovery: Recovery, attempts: Sequence[Attempted]) -> bool:
        begun = [r for r in self.journal() if isinstance(r, Requested)]
        asked = {r.round for r in begun if (r.event_id, r.endpoint_id) == (event, recovery.endpoint_id)}
        ended = {a.round for a in attempts if not isinstance(a.next, Retry)}
        return not any(a.outcome == "delivered" for a in attempts) and not ({*asked, FIRST_ROUND} - ended - {recovery.round})

    async def event(self, _organization: str, _mode: str, event_id: EventId) -> Ingested | None:
        found = (codec.accepted.decode(record.value).event for record in self._log.records(EVENTS_ACCEPTED))
        return next((event for event in found if event.id == event_id), None)


def ask_again(log: Log, number: int, event_id: EventId, endpoint: EndpointId) -> RoundId:
    round_id = ids.round_id(number, bytes(10))
    value = next(r.value for r in log.records(EVENTS_ACCEPTED) if codec.accepted.decode(r.value).event.id == event_id)
    assert value is not None
    event = codec.encode(codec.accepted.decode(value).event)
    request = Redelivery(
        v=1,
        round=round_id,
        cause="retry",
        organization=ORGANIZATION,
        mode="live",
        event_id=event_id,
        endpoint_id=endpoint,
        event=Raw(event),
    )
    log.append(DELIVERIES_REQUESTS, codec.encode(request))
    return round_id


def recover(log: Log, number: int, endpoint: EndpointId) -> RoundId:
    round_id = ids.round_id(number, bytes(10))
    request = Recovery(
        v=1, round=round_id, cause="recover", organization=ORGANIZATION, mode="live", endpoint_id=endpoint, since_ms=0, until_ms=1 << 40
    )
    log.append(DELIVERIES_REQUESTS, codec.encode(request))
    return round_id


@given(
    events=st.integers(1, 5),
    deaths=st.lists(st.tuples(st.integers(1, 25), st.booleans(), st.booleans()), max_size=5),
    statuses=st.lists(st.sampled_from([204, 500, 500, 500, "timeout", "local"]), max_size=60),
    retries=st.integers(0, 3),
    recoveries=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_crash_forks_a_round_repeats_its_attempts_or_recovers_twice(
    events: int,
    deaths: list[tuple[int, bool, bool]],
    statuses: list[int | str],
    retries: int,
    recoveries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    accepted = [accept(log, number) for number in range(events)]
    folded = FoldedLog(log)

    def one_life(lives: int, after: bool, commits: bool, outcomes: Sequence[int | str]) -> None:
        monkeypatch.setattr("delivery.recover._HELD_S", 0.4)  # less than a breaker stays open: recoveries go on in further records
        asyncio.run(
            live(
                log, lives, after=after, commits=commits, statuses=outcomes, rate_per_minute=None, monkeypatch=monkeypatch, missed=folded
            )
        )  # fmt: skip

    one_life(1_000_000, True, True, [500] * 4 * events + statuses)  # some end as dead letters
    asked = {ask_again(log, n, accepted[n % events], ENDPOINTS[n % 2]) for n in range(retries)}
    recovered = {recover(log, 100 + n, ENDPOINTS[n % 2]) for n in range(recoveries)}
    for lives, after, commits in deaths:
        one_life(lives, after, commits, statuses)
    one_life(1_000_000, True, True, [])

    attempts = [entry for entry in folded.journal() if isinstance(entry, Attempted)]
    twice = [key for key, count in Counter((a.event_id, a.endpoint_id, a.round, a.attempt) for a in attempts).items() if count > 1]
    assert not twice
    tasks = (codec.retry_task.decode(record.value) for delay in DELAYS_S for record in log.records(retry_topic(delay)))
    forked = [key for key, count in Counter((t.event_id, t.endpoint_id, t.round, t.attempt, t.hop) for t in tasks).items() if count > 1]
    assert not forked
    requests = (codec.request.decode(record.value) for record in log.records(DELIVERIES_REQUESTS))
    gone_on = [key for key, count in Counter((r.round, r.page) for r in requests if isinstance(r, Recovery)).items() if count > 1]
    assert not gone_on, "a recovery went on twice"
    letters = (codec.dead_letter.decode(record.value) for record in log.records(DELIVERIES_DEAD))
    dead = Counter((letter.event_id, letter.endpoint_id, letter.round) for letter in letters)
    rounds: dict[tuple[EventId, EndpointId, RoundId], list[Attempted]] = {}
    for made in attempts:
        rounds.setdefault((made.event_id, made.endpoint_id, made.round), []).append(made)
    for key, made_in in rounds.items():
        mine = sorted(made_in, key=lambda a: a.attempt)
        assert [a.attempt for a in mine] == list(range(1, len(mine) + 1))
        assert (mine[-1].outcome == "delivered") + dead[key] == 1
        assert {a.cause for a in mine} == ({None} if key[2] == FIRST_ROUND else {"retry"} if key[2] in asked else {"recover"})
        for earlier, later in pairwise(mine):
            assert isinstance(earlier.next, Retry)
            assert later.started_at_ms >= earlier.next.not_before_ms
    assert {key[2] for key in rounds} >= asked
    for event_id in accepted:
        for endpoint in ENDPOINTS:
            delivered = [a.round for a in attempts if (a.event_id, a.endpoint_id, a.outcome) == (event_id, endpoint, "delivered")]
            assert len([one for one in delivered if one not in asked]) <= 1, "a recovery sent what was taken"
            if recovered and endpoint in {ENDPOINTS[n % 2] for n in range(recoveries)}:
                again = [key for key in rounds if key[:2] == (event_id, endpoint) and key[2] != FIRST_ROUND]
                assert delivered or again, "what ended as a dead letter was not taken up again"
