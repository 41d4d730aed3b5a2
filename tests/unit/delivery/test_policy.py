"""What follows an attempt: pauses, jitter, Retry-After, and the hops that compose any wait, against a plain model."""

from __future__ import annotations

import errno
import socket
from datetime import UTC, datetime
from email.utils import format_datetime

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery import policy
from delivery.delays import choose, due_ms, for_parking
from delivery.local_failures import is_ours
from schemas import ids
from schemas.deliveries import Dead, Retry

DELAYS_S = (5.0, 30.0, 120.0, 480.0, 1_800.0, 3_600.0)
SCHEDULE_S = (30.0, 120.0, 480.0)
EVENT = ids.event_id(1, bytes(10))
ENDPOINT = ids.endpoint_id(1, bytes(10))
ENDED_MS = 1_795_485_083_000


def wait_ms(retry_after: str | None, attempt: int = 1, jitter: float = 0.0) -> int:
    following = policy.follow_up(503, attempt, ENDED_MS, SCHEDULE_S, retry_after=retry_after, jitter=jitter)
    assert isinstance(following, Retry)
    assert following.attempt == attempt + 1
    return following.not_before_ms - ENDED_MS


def date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(ENDED_MS / 1000 + seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "waits_s"),
    [
        (None, 30), ("0", 30), ("29", 30), ("45", 45), (" 45 ", 45), ("60", 60), ("61", 60), ("9" * 15, 60), ("9" * 400, 60), ("-5", 30),
        ("4.5", 30), ("", 30), ("soon", 30), ("٤٥", 30), ("45, 50", 30), ("\x00", 30), (date(45), 45), (date(-100), 30),
        (date(86_400), 60), (date(45).replace("GMT", "-0000"), 45), ("Sun, 06 Nov 9999999 08:49:37 GMT", 30),
        ("Mon, 99 Foo 2026 99:99:99 GMT", 30),
    ],
)  # fmt: skip
def test_retry_after_is_honoured_between_the_pause_and_twice_the_pause(retry_after: str | None, waits_s: int) -> None:
    assert wait_ms(retry_after) == waits_s * 1000


@given(retry_after=st.none() | st.text(max_size=40) | st.integers(0, 10**20).map(str), attempt=st.integers(1, 3), jitter=st.floats(0, 1))
def test_no_retry_is_early_or_later_than_twice_its_pause(retry_after: str | None, attempt: int, jitter: float) -> None:
    pause = SCHEDULE_S[attempt - 1] * 1000
    waited = wait_ms(retry_after, attempt, jitter)
    assert pause <= waited <= 2 * pause
    asked = policy.retry_after_ms(retry_after, ENDED_MS)
    assert waited >= min(asked or 0, 2 * pause)


def test_jitter_is_only_added_and_the_same_when_made_again() -> None:
    drawn = [policy.jitter_of(EVENT, ENDPOINT, number, 0.1) for number in range(200)]
    assert drawn == [policy.jitter_of(EVENT, ENDPOINT, number, 0.1) for number in range(200)]
    assert all(0 <= one < 0.1 for one in drawn)
    assert len(set(drawn)) == 200
    assert 0.03 < sum(drawn) / 200 < 0.07


def test_the_schedule_ends_in_a_dead_letter_and_410_at_once() -> None:
    assert policy.follow_up(500, 4, ENDED_MS, SCHEDULE_S) == Dead(reason="exhausted")
    assert policy.follow_up(410, 1, ENDED_MS, SCHEDULE_S) == Dead(reason="gone")
    assert policy.follow_up(204, 1, ENDED_MS, SCHEDULE_S) is None
    assert wait_ms(None, 3) == 480_000


@given(attempt=st.integers(1, 6), parked=st.integers(0, 50))
def test_work_is_put_off_for_no_longer_than_its_schedule_would_pause_but_each_time_longer(attempt: int, parked: int) -> None:
    pauses = [*SCHEDULE_S, *[SCHEDULE_S[-1]] * 100]
    each = [*DELAYS_S, *[DELAYS_S[-1]] * 100][parked] * 1000
    assert policy.put_off_ms(DELAYS_S, parked) == each
    assert policy.parked_ms(DELAYS_S, SCHEDULE_S, attempt, parked) == max(pauses[attempt + parked - 1] * 1000, each)


def test_a_schedule_of_seconds_does_not_send_put_off_work_round_every_second() -> None:
    waits = [policy.parked_ms(DELAYS_S, (1.0,), 1, parked) for parked in range(10)]
    assert waits == sorted(waits)
    assert waits[-1] == max(DELAYS_S) * 1000


def test_our_outage_is_believed_for_long_but_not_for_ever() -> None:
    assert policy.is_our_outage(4, SCHEDULE_S, reaches_others=False)
    assert not policy.is_our_outage(len(SCHEDULE_S), SCHEDULE_S, reaches_others=True)
    assert not policy.is_our_outage(8 * len(SCHEDULE_S), SCHEDULE_S, reaches_others=False)


@given(
    wait_ms=st.integers(0, 3 * 86_400_000),
    memory_s=st.sampled_from([0.001, 600.0, 1e9]),
    lags_ms=st.lists(st.integers(0, 2_000), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_hops_compose_any_wait_never_early_never_late_and_on_no_topic_longer_than_its_delay(
    wait_ms: int, memory_s: float, lags_ms: list[int]
) -> None:
    """The model: a record is taken when it is due, plus a lag of the consumer; then it hops to the largest delay that fits."""
    delays = for_parking(DELAYS_S, memory_s)
    assert max(delays) <= max(0.8 * memory_s, 5.0)
    now, not_before, lag_sum = 0, wait_ms, 0
    hops = 0
    while True:
        delay_s = choose(delays, not_before - now)
        due = due_ms(not_before, now, delay_s)
        assert now <= due <= now + delay_s * 1000
        lag = lags_ms[hops % len(lags_ms)]
        now, lag_sum, hops = due + lag, lag_sum + lag, hops + 1
        if now >= not_before:
            break
    assert now <= not_before + lags_ms[(hops - 1) % len(lags_ms)]
    smallest_steps = 2 * (wait_ms / (max(delays) * 1000)) + 4 * len(delays) + 4
    assert hops <= smallest_steps


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 7_200_000)), min_size=1, max_size=60))
def test_nobody_on_a_delay_topic_waits_behind_one_due_later_for_longer_than_the_smallest_delay(arrivals: list[tuple[int, int]]) -> None:
    """The model: each topic is taken in order; a record is taken when it is due and the one before it was taken."""
    now = 0
    taken: dict[float, int] = {}
    for gap, wait in arrivals:
        now += gap
        delay_s = choose(DELAYS_S, wait)
        due = due_ms(now + wait, now, delay_s)
        taken[delay_s] = max(due, taken.get(delay_s, 0))
        late = taken[delay_s] - due
        assert late <= (5_000 if delay_s == 5.0 else 0)


def test_our_own_failures_are_told_from_the_receivers() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None)

    def connector(error: OSError) -> aiohttp.ClientConnectorError:
        return aiohttp.ClientConnectorError(key, error)

    ours = [
        OSError(errno.EMFILE, "too many open files"),
        connector(OSError(errno.ENETUNREACH, "no route")),
        connector(OSError(errno.EADDRNOTAVAIL, "no address left")),
        aiohttp.ClientConnectorDNSError(key, socket.gaierror(socket.EAI_AGAIN, "try again")),
    ]
    theirs = [
        connector(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        connector(OSError(errno.EHOSTUNREACH, "host is down")),
        aiohttp.ClientConnectorDNSError(key, socket.gaierror(socket.EAI_NONAME, "no such name")),
        aiohttp.ServerDisconnectedError(),
        ValueError("nonsense"),
    ]
    assert all(map(is_ours, ours))
    assert not any(map(is_ours, theirs))
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = OSError(errno.ENFILE, "table full")
    assert is_ours(wrapped)


def test_an_endpoint_that_alone_cannot_be_reached_is_given_up_on_in_the_end() -> None:
    assert policy.is_our_outage(20, SCHEDULE_S, reaches_others=False)
    assert policy.is_our_outage(2, SCHEDULE_S, reaches_others=True)
    assert not policy.is_our_outage(3, SCHEDULE_S, reaches_others=True)
