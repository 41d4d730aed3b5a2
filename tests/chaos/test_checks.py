"""The checkers themselves: each must name a fault that is put into good data by hand."""

from __future__ import annotations

import pytest

from schemas import ids
from schemas.deliveries import Attempted, Dead, JournalRecord, Planned, Retry
from tests.chaos.checks import Leg, Row, check_deliveries, check_inbox
from tests.chaos.workload import Posted

E, ORGANIZATION, ENDPOINT = ids.event_id, ids.organization_id(1, bytes(10)), ids.endpoint_id(1, bytes(10))
IDS = [E(n, bytes(10)) for n in range(4)]


def posted() -> list[Posted]:
    return [Posted(n, created=[IDS[n]]) for n in range(3)]


def rows() -> list[Row]:
    return [Row(IDS[n], posted()[n].body) for n in range(3)]


EXPLAINED: dict[str, tuple[str, str | None]] = dict.fromkeys(IDS[:3], ("accepted", None))


def test_a_good_inbox_has_no_anomaly() -> None:
    assert check_inbox(posted(), rows(), EXPLAINED) == []
    again = [*posted()[:2], Posted(2, created=[IDS[2], IDS[3]])]
    assert check_inbox(again, rows(), {**EXPLAINED, IDS[3]: ("duplicate", IDS[2])}) == []


@pytest.mark.parametrize(
    ("inbox", "named"),
    [
        (rows()[:2], "not in the inbox"),
        ([*rows(), rows()[2]], "2 times"),
        ([rows()[1], rows()[0], rows()[2]], "out of order"),
        ([*rows()[:2], Row(IDS[2], b"{}")], "never posted"),
        ([*rows()[:2], Row(IDS[3], rows()[2].payload)], "the inbox shows"),
    ],
)
def test_a_bad_inbox_is_named(inbox: list[Row], named: str) -> None:
    assert any(named in anomaly for anomaly in check_inbox(posted(), inbox, EXPLAINED))


def test_an_answered_id_that_nobody_knows_is_named() -> None:
    assert check_inbox(posted(), rows(), {**EXPLAINED, IDS[1]: ("missing", None)})


def attempted(number: int, following: Retry | Dead | None) -> Attempted:
    return Attempted(
        v=1, event_id=IDS[0], organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, attempt=number, started_at_ms=1, duration_ms=1,
        outcome="failed" if following else "delivered", worker="w", next=following,
    )  # fmt: skip


PLAN = Planned(v=1, event_id=IDS[0], organization=ORGANIZATION, mode="live", accepted_offset=0, endpoint_ids=[ENDPOINT])
SECOND = Leg(IDS[0], ENDPOINT, 2, 0)
GOOD: list[JournalRecord] = [PLAN, attempted(1, Retry(attempt=2, not_before_ms=1)), attempted(2, None)]


def deliveries(journal: list[JournalRecord], legs: list[Leg]) -> list[str]:
    return check_deliveries([IDS[0]], [ENDPOINT], journal, legs)


def test_a_good_journal_has_no_anomaly() -> None:
    assert deliveries(GOOD, [SECOND]) == []
    assert deliveries(GOOD[:2], [SECOND]) == []
    assert deliveries([PLAN, attempted(1, Dead(reason="gone"))], []) == []


@pytest.mark.parametrize(
    ("journal", "legs", "named"),
    [
        ([PLAN], [], "never attempted"),
        ([*GOOD, attempted(2, None)], [SECOND], "journalled 2 times"),
        (GOOD, [SECOND, SECOND], "scheduled 2 times"),
        (GOOD[:2], [], "on no delay topic"),
        ([PLAN, attempted(2, None)], [SECOND], "attempts [2]"),
        ([PLAN, PLAN, attempted(1, None)], [], "planned 2 times"),
    ],
)
def test_a_bad_journal_is_named(journal: list[JournalRecord], legs: list[Leg], named: str) -> None:
    assert any(named in anomaly for anomaly in deliveries(journal, legs))
