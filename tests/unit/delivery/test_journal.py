"""What the journal keeps of what: membership for as long as it must, details only while something may follow."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.facts import Facts, Source
from delivery.journal import Asked, Journal, Leg, Page
from schemas import ids
from schemas.deliveries import Attempted, Dead, Planned, Requested, Retry
from schemas.ids import EventId, RoundId
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_FIFO, EVENTS_ACCEPTED

ORGANIZATION = ids.organization_id(1, bytes(10))
ENDPOINT, OTHER = (ids.endpoint_id(n, bytes(10)) for n in (1, 2))
ROUND = RoundId("rnd_" + ids.event_id(1, bytes(10))[4:])
MEMORY_MS = 1_000


def event(number: int) -> EventId:
    return ids.event_id(1_795_000_000_000, number.to_bytes(10, "big"))


def planned(number: int, fifo: Sequence[ids.EndpointId] = ()) -> Planned:
    return Planned(
        v=1,
        event_id=event(number),
        organization=ORGANIZATION,
        mode="live",
        accepted_offset=number,
        endpoint_ids=[ENDPOINT],
        fifo=list(fifo),
    )


def attempted(number: int, following: Retry | Dead | None = None, response: str | None = None) -> Attempted:
    return Attempted(
        v=1, event_id=event(number), organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, attempt=1,
        outcome="delivered" if following is None else "failed", started_at_ms=5, duration_ms=7, worker="w", status=204, response=response,
        next=following,
    )  # fmt: skip


@given(st.lists(st.one_of(st.integers(0, 50), st.none()), max_size=200), st.booleans())
def test_facts_come_out_in_the_order_of_their_offsets_whatever_order_they_came_in(steps: list[int | None], sources: bool) -> None:
    """`None` takes one away."""
    facts, model = Facts(), list[tuple[int, int]]()
    for number, offset in enumerate(steps):
        if offset is not None:
            facts.add(offset, 1_000 + offset, number, Source("a" if offset % 2 else "b", offset) if sources else None)
            model = sorted([*model, (offset, number)])
        elif model:
            assert facts.first_offset == model[0][0]
            assert facts.first_since_ms == 1_000 + model[0][0]
            assert facts.first_source == (Source("a" if model[0][0] % 2 else "b", model[0][0]) if sources else None)
            assert facts.take() == model.pop(0)[1]
        assert len(facts) == len(model)


def test_a_long_row_of_facts_is_cut_and_loses_none() -> None:
    facts = Facts()
    for number in range(20_000):
        facts.add(number, 0, number, None)
    assert [facts.take() for _ in range(15_000)] == list(range(15_000))
    facts.add(20_000, 0, 20_000, None)
    assert [facts.take() for _ in range(len(facts))] == list(range(15_000, 20_001))


def test_of_an_attempt_that_nothing_follows_only_that_it_was_made_is_kept() -> None:
    journal = Journal(MEMORY_MS)
    key = (event(1), ENDPOINT, 1, ids.RoundId(""))
    journal.add_attempt(DELIVERIES_ATTEMPTS, 3, attempted(1), 0, Source(EVENTS_ACCEPTED, 1))
    assert journal.has_attempt(key)
    assert journal.failed(key) is None
    for other in ((event(2), *key[1:]), (key[0], OTHER, 1, key[3]), (*key[:2], 2, key[3]), (*key[:3], ROUND)):
        assert not journal.has_attempt(other)


def test_what_follows_a_failed_attempt_is_known_until_it_is_settled_without_what_the_receiver_answered() -> None:
    journal = Journal(MEMORY_MS)
    key = (event(1), ENDPOINT, 1, ids.RoundId(""))
    made = attempted(1, Retry(attempt=2, not_before_ms=9), response="x" * 5_000)
    journal.add_attempt(DELIVERIES_ATTEMPTS, 3, made, 0)
    journal.add_attempt(DELIVERIES_ATTEMPTS, 4, attempted(1, Dead(reason="gone")), 0)  # a copy: the first record stays
    failed = journal.failed(key)
    assert failed is not None
    assert (failed.next, failed.response) == (made.next, None)
    journal.settle(key)
    assert journal.failed(key) is None
    assert journal.has_attempt(key)


@pytest.mark.parametrize(
    ("fifo", "source", "kept"),
    [((), Source(EVENTS_ACCEPTED, 1), False), ((OTHER,), Source(EVENTS_ACCEPTED, 1), True), ((), None, True)],
    ids=["own", "fifo", "read"],
)
def test_only_a_plan_of_ones_own_is_forgotten_with_its_source(fifo: tuple[ids.EndpointId, ...], source: Source | None, kept: bool) -> None:
    journal = Journal(MEMORY_MS)
    journal.add_plan(DELIVERIES_ATTEMPTS, 3, planned(1, fifo), 0, source)
    journal.forget(10, lambda _: False)
    assert journal.plan(event(1)) == (ENDPOINT,)
    assert journal.checkpoint(-1).t[DELIVERIES_ATTEMPTS] == 3
    journal.forget(10, lambda _: True)
    assert (journal.plan(event(1)) is not None) is kept
    assert journal.checkpoint(-1).t[DELIVERIES_ATTEMPTS] == (3 if kept else 4)
    journal.forget(MEMORY_MS + 1, lambda _: True)
    assert journal.plan(event(1)) is None


def test_every_kind_of_fact_is_remembered_for_its_time_and_no_longer_than_its_source() -> None:
    journal = Journal(MEMORY_MS)
    leg, page = Leg(event(1), ENDPOINT, 1, 0), Page(ROUND, 1, ENDPOINT)
    asked = Requested(v=1, event_id=event(1), organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, round=ROUND, cause="retry")
    source = Source(DELIVERIES_FIFO, 7)
    journal.add_leg("retry", 1, leg, 0, source)
    journal.add_dead("dead", 1, (event(1), ENDPOINT, ROUND), 0, source)
    journal.add_asked(DELIVERIES_ATTEMPTS, 1, asked, 0, source)
    journal.add_page("requests", 1, page, 0, source)

    def known() -> list[bool]:
        is_asked = journal.is_asked(Asked(event(1), ENDPOINT, ROUND))
        return [journal.has_leg(leg), journal.is_dead((event(1), ENDPOINT, ROUND)), is_asked, journal.has_page(page)]

    assert known() == [True] * 4
    assert not journal.has_leg(Leg(event(1), ENDPOINT, 1, 1))
    assert not journal.has_page(Page(ROUND, 2, ENDPOINT))
    journal.forget(MEMORY_MS + 1, lambda one: one != source)
    assert known() == [True] * 4
    journal.forget(MEMORY_MS, lambda _: True)
    assert known() == [True] * 4
    journal.forget(MEMORY_MS + 1, lambda _: True)
    assert known() == [False] * 4
    assert len(journal) == 0


def test_a_delivered_event_costs_less_than_200_bytes_of_memory() -> None:
    """At 150 a second, remembered for ten minutes, they are 18 MB."""
    journal, count = Journal(600_000), 50_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            source = Source(EVENTS_ACCEPTED, number)
            journal.add_plan(DELIVERIES_ATTEMPTS, 2 * number, planned(number), number, source)
            journal.add_attempt(DELIVERIES_ATTEMPTS, 2 * number + 1, attempted(number, response=None), number, source)
            if number % 500 == 0:
                journal.forget(number, lambda _: True)
        journal.forget(count, lambda _: True)
        per_event = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert len(journal) == count
    assert per_event < 200
