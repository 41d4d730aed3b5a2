"""The folds on a real Postgres: whatever way the same records come in, the tables end the same.

Batches are cut anywhere, transactions are rolled back and tried again, topics are folded in any order, crash copies stand in the log, and
the API writes acks before the fold does. The final tables are compared with one straight pass.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import Raw
from psycopg import AsyncConnection, sql

from projections import acks, folds, queries
from projections.cursors import Position
from projections.offsets import Fenced, load_offsets, lock_partition
from runtime.postgres import connection_arguments
from runtime.settings import Settings
from schemas import codec, ids, keys
from schemas.deliveries import FIRST_ROUND, Attempted, Dead, Planned, Requested, Retry
from schemas.events import Ack, Duplicate, Ingested, Origin
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_DUPLICATES, INBOX_ACKS

ORGANIZATION = ids.organization_id(1, bytes(10))
KEY = keys.record_key(ORGANIZATION)
ROUND = ids.round_id(1, bytes(10))
ENDPOINT, DISABLED = (ids.endpoint_id(n, bytes(10)) for n in (1, 2))
TABLES = ("projection_offsets", "inbox", "acks", "unacked", "plans", "rounds", "attempts", "duplicates", "retention", "removed")
Log = dict[str, list[Record]]
Tables = dict[str, list[tuple[Any, ...]]]
FOLDS = {fold.topic: fold for fold in folds.FOLDS}


def event_id(number: int) -> ids.EventId:
    return ids.event_id(number, bytes(10))


def accepted(number: int) -> bytes:
    event = Ingested(
        v=1, id=event_id(number), organization=ORGANIZATION, mode="live", type="t", received_at_ms=number,
        fingerprint=keys.fingerprint("t", None, b"%d" % number), payload=Raw(b"%d" % number), subject=None if number % 2 else "s",
    )  # fmt: skip
    return codec.encode_accepted(codec.encode(event), number, 100 + number)


def plan(n: int, endpoints: list[ids.EndpointId], held: list[ids.EndpointId]) -> bytes:
    return codec.encode(
        Planned(
            v=1, event_id=event_id(n), organization=ORGANIZATION, mode="live", accepted_offset=n, endpoint_ids=endpoints, held=held
        )
    )  # fmt: skip


def failed(n: int, number: int, duration_ms: int, round_id: ids.RoundId = FIRST_ROUND) -> Attempted:
    return Attempted(
        v=1,
        event_id=event_id(n),
        organization=ORGANIZATION,
        mode="live",
        endpoint_id=ENDPOINT,
        attempt=number,
        outcome="failed",
        started_at_ms=number,
        duration_ms=duration_ms,
        worker="w",
        status=500,
        error="status",
        next=Retry(attempt=2, not_before_ms=5) if number == 1 else Dead(reason="exhausted"),
        round=round_id,
        cause="retry" if round_id else None,
    )


def asked(n: int) -> bytes:
    return codec.encode(
        Requested(
            v=1, event_id=event_id(n), organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, round=ROUND, cause="retry"
        )
    )  # fmt: skip


def log() -> Log:
    """A small history: crash copies, a key mismatch, poison, acks before and after, twice; retries to the end."""
    values: dict[str, list[bytes]] = {
        EVENTS_ACCEPTED: [accepted(n) for n in (0, 1, 2, 1, 2, 3, 4, 4, 5)],
        INBOX_ACKS: [
            codec.encode(Ack(v=1, organization=ORGANIZATION, mode="live", ids=[event_id(n) for n in group]))
            for group in ((1, 4), (4, 2), (9,), (1,))
        ],
        EVENTS_DUPLICATES: [
            codec.encode(
                Duplicate(
                    v=1,
                    id=event_id(50 + n),
                    organization=ORGANIZATION,
                    mode="live",
                    type="t",
                    original_id=event_id(1),
                    kind="duplicate",
                    ingested=Origin(50 + n, 7),
                )
            )
            for n in (0, 1, 0)
        ],
        DELIVERIES_ATTEMPTS: [],
    }
    for n in (0, 1):
        planned = plan(n, [ENDPOINT], [DISABLED])
        # The second copy was written late by another owner, which saw the endpoints as they were then.
        values[DELIVERIES_ATTEMPTS] += [planned, plan(n, [DISABLED], [ENDPOINT])]
        values[DELIVERIES_ATTEMPTS] += [codec.encode(failed(n, number, duration_ms)) for duration_ms, number in enumerate((1, 2, 2))]
    # The same attempts once more in a round that was asked for: rows of their own, each once.
    values[DELIVERIES_ATTEMPTS] += [asked(0), asked(0), *(codec.encode(failed(0, number, 7, ROUND)) for number in (1, 2, 2))]
    values[DELIVERIES_ATTEMPTS] += [plan(2, [], [DISABLED]), plan(2, [ENDPOINT, DISABLED], [])]
    records = {topic: [Record(i, 1_000 + i, KEY, v, ()) for i, v in enumerate(listed)] for topic, listed in values.items()}
    records[EVENTS_ACCEPTED] += [
        Record(9, 1, b"org_other", accepted(6), ()),
        Record(10, 1, KEY, b"poison", ()),
        Record(11, 1, KEY, accepted(7), ()),
    ]
    return records


LOG = log()


class Shadow:
    """The fold tables in a schema of their own."""

    def __init__(self, connection: AsyncConnection[Any], schema: str, log: Log) -> None:
        self.connection = connection
        self.schema = schema
        self.log = log

    async def reset(self) -> None:
        for table in TABLES:
            await self.connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(self.schema, table)))
        await load_offsets(self.connection, {(topic, 0) for topic in self.log})

    async def fold(self, topic: str, begin: int, end: int) -> None:
        decoded = FOLDS[topic].decode(0, self.log[topic][begin:end])
        await FOLDS[topic].write(self.connection, 0, decoded, begin, end)

    async def dump(self) -> Tables:
        found: Tables = {}
        for table in TABLES:
            cursor = await self.connection.execute(sql.SQL("SELECT * FROM {} AS t ORDER BY t").format(sql.Identifier(self.schema, table)))
            found[table] = await cursor.fetchall()
        return found


async def shadow(settings: Settings, log: Log | None = None) -> Shadow:
    schema = f"shadow_{os.getpid()}"
    arguments = connection_arguments(settings.postgres, search_path=schema, application="tests")
    connection = await psycopg.AsyncConnection.connect(arguments.pop("conninfo"), autocommit=True, **arguments)
    await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    for table in TABLES:
        await connection.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(
                sql.Identifier(schema, table), sql.Identifier("folds", table)
            )
        )
    return Shadow(connection, schema, log or LOG)


async def one_pass(tables: Shadow) -> Tables:
    await tables.reset()
    for topic, records in tables.log.items():
        await tables.fold(topic, 0, len(records))
    return await tables.dump()


@st.composite
def ways(draw: st.DrawFn, log: Log) -> list[tuple[str, int, int, str]]:
    """The topics cut into batches and interleaved; each batch may be rolled back first, or come with the API's own ack before it."""
    cut: dict[str, list[tuple[int, int]]] = {}
    for topic, records in log.items():
        edges = sorted({0, len(records), *draw(st.lists(st.integers(1, len(records) - 1), max_size=5))})
        cut[topic] = list(pairwise(edges))
    order = draw(st.permutations([topic for topic, batches in cut.items() for _ in batches]))
    positions = dict.fromkeys(cut, 0)
    steps: list[tuple[str, int, int, str]] = []
    for topic in order:
        begin, end = cut[topic][positions[topic]]
        positions[topic] += 1
        steps.append((topic, begin, end, draw(st.sampled_from(["", "rolled back", "api ack", "again"]))))
    return steps


async def both_ways(settings: Settings, log: Log, way: Sequence[tuple[str, int, int, str]]) -> tuple[Tables, Tables]:
    """What one straight pass leaves, and what `way` leaves."""
    tables = await shadow(settings, log)
    expected = await one_pass(tables)
    await tables.reset()
    for topic, begin, end, extra in way:
        if extra == "rolled back":
            with pytest.raises(ZeroDivisionError):
                async with tables.connection.transaction():
                    await tables.fold(topic, begin, end)
                    raise ZeroDivisionError
        if extra == "api ack":
            await _api_ack(tables, 1)
        await tables.fold(topic, begin, end)
        if extra == "again":
            with pytest.raises(Fenced):
                await tables.fold(topic, begin, end)
    found = await tables.dump()
    await tables.connection.close()
    return expected, found


@given(way=ways(LOG))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_way_of_folding_gives_the_tables_of_one_pass(way: Sequence[tuple[str, int, int, str]], settings: Settings) -> None:
    expected, found = asyncio.run(both_ways(settings, LOG, way))
    assert found == expected
    assert len(expected["inbox"]) == 7
    assert len(expected["unacked"]) == 4
    of_plans = {held: sorted(row[2:4] for row in expected["plans"] if row[-1] is held) for held in (False, True)}
    attempts = sorted((row[2], row[-2], row[4]) for row in expected["attempts"])
    assert attempts == sorted((event_id(n), one, attempt) for n, one in ((0, ""), (0, ROUND), (1, "")) for attempt in (1, 2))
    assert [row[2:6] for row in expected["rounds"]] == [(event_id(0), ENDPOINT, ROUND, "retry")]
    assert of_plans[False] == [(event_id(n), ENDPOINT) for n in (0, 1)]
    assert of_plans[True] == [(event_id(n), DISABLED) for n in (0, 1, 2)]


async def _api_ack(tables: Shadow, offset: int) -> None:
    """What the API writes right after its ack record is in the log."""
    ack = codec.ack.decode(LOG[INBOX_ACKS][offset].value)
    rows = [acks.Row(ORGANIZATION, "live", one, offset, 1_000 + offset) for one in ack.ids]
    async with tables.connection.transaction():
        await lock_partition(tables.connection, 0)
        await acks.apply(tables.connection, 0, rows)


def test_what_cannot_be_read_or_is_under_a_foreign_key_is_parked_and_never_shown() -> None:
    decoded = FOLDS[EVENTS_ACCEPTED].decode(0, LOG[EVENTS_ACCEPTED])
    assert [(parked.record.offset, parked.error.reason) for parked in decoded.parked] == [(9, "key_mismatch"), (10, "malformed")]


async def test_what_an_endpoint_missed_is_counted_for_its_owner_only(settings: Settings) -> None:
    tables = await shadow(settings)
    await one_pass(tables)
    owners = [
        queries.Owner(ORGANIZATION, "live"),
        queries.Owner(ORGANIZATION, "test"),
        queries.Owner(ids.organization_id(2, bytes(10)), "live"),
    ]
    counted = [[await queries.held(tables.connection, owner, one) for one in (ENDPOINT, DISABLED)] for owner in owners]
    await tables.connection.close()
    nothing = queries.Held(0, None, None)
    assert counted == [[nothing, queries.Held(3, event_id(0), event_id(2))], [nothing, nothing], [nothing, nothing]]


async def test_pages_end_at_their_limit_or_bytes_and_say_whether_there_is_more(settings: Settings) -> None:
    tables = await shadow(settings)
    await one_pass(tables)  # seven events with payloads of one byte each
    seen: list[tuple[list[bytes], bool]] = []
    for limit, bytes_max in ((3, 100), (7, 100), (100, 2), (100, 1), (100, 7)):
        page = await queries.page(
            tables.connection, queries.Owner(ORGANIZATION, "live"), "all", None, Position(0, 0, -1), limit=limit, bytes_max=bytes_max
        )
        seen.append(([item.payload for item in page.items], page.more))
    await tables.connection.close()
    payloads = [b"0", b"1", b"2", b"3", b"4", b"5", b"7"]
    assert seen == [(payloads[:3], True), (payloads, False), (payloads[:2], True), (payloads[:1], True), (payloads, False)]
