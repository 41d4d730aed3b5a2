"""What an endpoint missed, on a real Postgres: what a recovery takes up bit by bit is what is counted before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from delivery.missed import Missed
from projections.queries import Owner
from projections.redeliveries import Redeliveries
from runtime import migrations
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, pool
from runtime.settings import PostgresSettings, Settings
from schemas import ids
from schemas.deliveries import Recovery
from tests.contract.databases import empty_database

ORGANIZATION = ids.organization_id(1, bytes(10))
ENDPOINT, OTHER = (ids.endpoint_id(n, bytes(10)) for n in (1, 2))
MINE, ANOTHER = (ids.round_id(n, bytes(10)) for n in (1, 2))
#: What became of an event at the endpoint: (held, attempts as (round, number, next), rounds asked for). `next` None: delivered.
Story = tuple[bool, list[tuple[str, int, str | None]], list[str]]
STORIES: dict[str, Story] = {
    "delivered": (False, [("", 1, None)], []),
    "dead": (False, [("", 1, "retry"), ("", 2, "dead")], []),
    "retrying": (False, [("", 1, "retry")], []),
    "not attempted": (False, [], []),
    "held": (True, [], []),
    "held and recovered": (True, [(ANOTHER, 1, None)], [ANOTHER]),
    "held and asked for": (True, [], [ANOTHER]),
    "held and asked for by this call": (True, [], [MINE]),
    "dead and recovered": (False, [("", 1, "dead"), (ANOTHER, 1, None)], [ANOTHER]),
    "dead and dead again": (False, [("", 1, "dead"), (ANOTHER, 1, "dead")], [ANOTHER]),
    "dead and under way": (False, [("", 1, "dead"), (ANOTHER, 1, "retry")], [ANOTHER]),
    "dead and asked for": (False, [("", 1, "dead")], [ANOTHER]),
    "delivered and asked for once more": (False, [("", 1, None), (ANOTHER, 1, "dead")], [ANOTHER]),
    "a round died before the first": (False, [("", 1, "retry"), (ANOTHER, 1, "dead")], [ANOTHER]),
}
NAMES = list(STORIES)
DEAD, HELD = {"dead", "dead and dead again"}, {"held"}


def event_id(name: str) -> ids.EventId:
    """Received at 1 s, 2 s, …"""
    return ids.event_id(1_000 * (1 + NAMES.index(name)), bytes(10))


@pytest.fixture(scope="module")
def database(settings: Settings) -> Iterator[PostgresSettings]:
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        with psycopg.connect(made.dsn.get_secret_value(), autocommit=True) as connection:
            fill(connection)
        yield made


def fill(connection: psycopg.Connection[Any]) -> None:
    offset = 0
    for name, (held, attempts, rounds) in STORIES.items():
        event = event_id(name)
        for endpoint, is_held in ((ENDPOINT, held), (OTHER, True)):
            connection.execute(
                "INSERT INTO folds.plans (organization, mode, event_id, endpoint_id, partition, journal_offset, held) "
                "VALUES (%s, 'live', %s, %s, 0, %s, %s)", (ORGANIZATION, event, endpoint, offset, is_held),
            )  # fmt: skip
        for one in rounds:
            connection.execute(
                "INSERT INTO folds.rounds (organization, mode, event_id, endpoint_id, round, cause, partition, journal_offset) "
                "VALUES (%s, 'live', %s, %s, %s, 'recover', 0, %s)", (ORGANIZATION, event, ENDPOINT, one, offset),
            )  # fmt: skip
        for one, number, following in attempts:
            offset += 1
            connection.execute(
                "INSERT INTO folds.attempts (organization, mode, event_id, endpoint_id, round, attempt, partition, journal_offset, "
                "outcome, started_at_ms, duration_ms, worker, next_kind) VALUES (%s, 'live', %s, %s, %s, %s, 0, %s, %s, 1, 1, 'w', %s)",
                (ORGANIZATION, event, ENDPOINT, one, number, offset, "failed" if following else "delivered", following),
            )


@pytest.fixture
async def folds(database: PostgresSettings) -> AsyncIterator[Any]:
    async with pool(database, search_path=FOLDS_SCHEMA, application="tests") as one:
        yield one


@pytest.fixture
async def control(database: PostgresSettings) -> AsyncIterator[Any]:
    async with pool(database, search_path=CONTROL_SCHEMA, application="tests") as one:
        yield one


async def taken_up(
    control: Any,
    *,
    limit: int,
    since_ms: int = 0,
    until_ms: int = 1 << 40,
    held: bool = True,
    event: str | None = None,
    left_out: Sequence[tuple[str, str]] = (),
) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        recovery = Recovery(
            v=1, round=MINE, cause="recover", organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, since_ms=since_ms,
            until_ms=until_ms, held=held, event_id=None if event is None else event_id(event),
            left_out=[(event_id(name), ids.RoundId(one)) for name, one in left_out],
        )  # fmt: skip
        page = await Missed(control).some(recovery, after, limit)
        assert len(page.event_ids) <= limit
        found += [next(name for name in NAMES if event_id(name) == one) for one in page.event_ids]
        if page.last is None:
            return found
        assert after is None or page.last > after
        after = page.last


@pytest.mark.parametrize("looked_at", [2, 3, 100])
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_recovery_takes_up_what_died_or_was_held_and_nothing_that_was_taken_or_is_on_its_way(
    control: Any, limit: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.missed._LOOKED_AT_MAX", looked_at)
    own = {"held and asked for by this call"}  # begun by an earlier life of its worker, which may not have come to its end
    expected = sorted(DEAD | HELD | own, key=NAMES.index)
    assert await taken_up(control, limit=limit) == expected
    assert await taken_up(control, limit=limit, held=False) == sorted(DEAD, key=NAMES.index)
    assert await taken_up(control, limit=limit, event="dead") == ["dead"]
    assert await taken_up(control, limit=limit, event="delivered") == []
    assert await taken_up(control, limit=limit, since_ms=5_000, until_ms=10_000) == ["held", *sorted(own)]
    assert await taken_up(control, limit=limit, since_ms=2_000, until_ms=2_001) == ["dead"]


async def test_a_dead_letter_that_is_left_out_is_none_and_another_round_of_its_event_still_is(control: Any, folds: Any) -> None:
    counting = Redeliveries(folds, lambda: pytest.fail("nothing is sent"), SYSTEM)
    owner = Owner(ORGANIZATION, "live")
    for name in DEAD:
        rounds = [one for one, _, following in STORIES[name][1] if following == "dead"]
        for left, there in ((rounds, DEAD - {name}), (rounds[1:], DEAD), ([MINE], DEAD)):
            pairs = [(name, one) for one in left]
            assert await taken_up(control, limit=100, held=False, left_out=pairs) == sorted(there, key=NAMES.index)
            letters = [(event_id(name), ids.RoundId(one)) for one in left]
            counted = (await counting.missed(owner, ENDPOINT, held=False, left_out=letters)).deliveries
            assert counted == len(there)


async def test_what_is_counted_is_what_a_new_recovery_would_take_up(folds: Any) -> None:
    counting = Redeliveries(folds, lambda: pytest.fail("nothing is sent"), SYSTEM)
    owner = Owner(ORGANIZATION, "live")
    missed = await counting.missed(owner, ENDPOINT)
    assert (missed.deliveries, missed.more, missed.first_ms) == (3, False, 2_000)
    assert (await counting.missed(owner, ENDPOINT, held=False)).deliveries == 2
    assert (await counting.missed(owner, ENDPOINT, since_ms=3_000, until_ms=6_000)).deliveries == 1
    assert (await counting.missed(owner, ENDPOINT, event_id=event_id("dead"))).deliveries == 1
    assert (await counting.missed(owner, OTHER)).deliveries == len(STORIES)
    for other in (Owner(ORGANIZATION, "test"), Owner(ids.organization_id(2, bytes(10)), "live")):
        assert (await counting.missed(other, ENDPOINT)).deliveries == 0
