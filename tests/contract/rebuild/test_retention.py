"""A rebuild after retention: what it took stays away, the rest is the same bytes, also of one target and beside live traffic."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from runtime.settings import Settings
from schemas import codec, keys
from schemas.events import MODES
from schemas.ids import OrganizationId
from schemas.lifecycle import RetentionMoved
from schemas.topics import EVENTS_ACCEPTED, LIFECYCLE
from tests.contract.rebuild.conftest import EVENTS
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import execute, fetch, fold_live, rebuild, straight, sums
from tests.contract.rebuild.traffic import Traffic

FIRST_MS = 1_700_000_000_000


def move(settings: Settings, organization: OrganizationId, before_ms: int) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2", "enable.idempotence": True})
    for mode in MODES:
        moved = RetentionMoved(v=1, organization=organization, mode=mode, before_ms=before_ms, actor="tests", at_ms=FIRST_MS)
        producer.produce(LIFECYCLE, codec.encode(moved), keys.record_key(organization))
    assert producer.flush(20) == 0


@pytest.fixture
def retained(tables: Settings, corpus: Corpus) -> Settings:
    """Half of the log was folded before the marks came, half after; two organizations of twelve lost most of what they had."""
    fold_live(tables, share=0.5)
    for organization in corpus.organizations[:2]:
        move(tables, organization, FIRST_MS + EVENTS // 3)
        move(tables, organization, FIRST_MS + EVENTS * 3 // 4)
    fold_live(tables)
    return tables


def test_what_retention_took_is_gone_and_every_target_is_rebuilt_without_it(retained: Settings, corpus: Corpus) -> None:
    marks = fetch(retained, "SELECT organization, mode, event_id FROM retention")
    assert {row[0] for row in marks} == set(corpus.organizations[:2])
    for table in ("inbox", "unacked", "acks", "plans", "rounds", "attempts", "duplicates"):
        below = f"SELECT count(*) FROM {table} t JOIN retention r USING (organization, mode) WHERE t.event_id < r.event_id"
        assert fetch(retained, below) == [(0,)]
        assert fetch(retained, f"SELECT count(*) > 10 FROM {table}") == [(True,)]
    assert sums(retained) == straight(retained)
    before = sums(retained)
    for target in ("all", "inbox", "attempts"):
        report = rebuild(retained, target)
        assert report.equal, (target, report.tables)
        assert report.swapped
        assert sums(retained) == before


def test_marks_that_come_while_a_rebuild_is_half_way_take_what_it_has_loaded(retained: Settings, corpus: Corpus) -> None:
    execute(retained, "UPDATE inbox SET type = type || 'x'")  # a difference, so that the loaded shadow stays
    assert not rebuild(retained).equal
    execute(retained, "UPDATE inbox SET type = rtrim(type, 'x')")
    move(retained, corpus.organizations[2], FIRST_MS + EVENTS // 2)
    fold_live(retained)
    before = sums(retained)
    report = rebuild(retained)
    assert (report.equal, report.swapped, report.resumed) == (True, True, True)
    assert sums(retained) == before


@pytest.mark.parametrize(
    ("statement", "table", "kind"),
    [
        ("UPDATE retention SET event_id = 'evt_01000000-0000-7000-8000-000000000000'", "retention", "changed"),
        ("UPDATE removed SET position = position + 1", "removed", "changed"),
        ("DELETE FROM removed", "removed", "missing"),
    ],
)
def test_a_mark_or_a_gap_that_is_not_what_the_log_says_is_found(statement: str, table: str, kind: str, retained: Settings) -> None:
    assert execute(retained, statement) > 0
    report = rebuild(retained, verify_only=True)
    found = {(one.table, one.kind, one.topic) for compared in report.tables for one in compared.listed}
    assert found == {(table, kind, LIFECYCLE if table == "retention" else EVENTS_ACCEPTED)}


@pytest.mark.verify
@pytest.mark.timeout(240)
def test_marks_that_move_during_traffic_and_a_rebuild_leave_both_the_same(retained: Settings, corpus: Corpus) -> None:
    with Traffic(retained, corpus).running("produce", "fold", "ack") as traffic:
        for number, target in enumerate(("all", "inbox", "attempts"), 3):
            move(retained, corpus.organizations[number], FIRST_MS + EVENTS // 2)
            report = rebuild(retained, target)
            assert report.equal, report.tables
            assert report.swapped
            traffic.more("fold")
    fold_live(retained)
    assert sums(retained) == straight(retained)
