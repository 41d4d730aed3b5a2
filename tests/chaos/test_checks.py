"""The checkers themselves: each must name a fault that is put into good data by hand."""

from __future__ import annotations

import random

import msgspec
import pytest

from schemas import ids
from schemas.deliveries import Attempted, Dead, JournalRecord, Planned, Retry
from tests.chaos.checks import Hook, Leg, Row, check_deliveries, check_history, check_inbox, check_order, check_strangers, check_webhooks
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


@pytest.mark.parametrize("history", [("missing", None), ("pending", None), ("rejected", None), ("duplicate", IDS[3]), ("conflict", IDS[1])])
def test_an_answered_id_that_nobody_can_account_for_is_named(history: tuple[str, str | None]) -> None:
    found = check_inbox(posted(), rows(), {**EXPLAINED, IDS[1]: history})
    assert [f"{IDS[1]}: answered for event 1" in anomaly for anomaly in found] == [True]


def test_changed_bytes_are_named_twice_as_a_stranger_and_as_a_loss() -> None:
    tidied = Row(IDS[1], posted()[1].body.replace(b".0", b""))
    found = check_inbox(posted(), [rows()[0], tidied, rows()[2]], EXPLAINED)
    assert any("never posted" in anomaly for anomaly in found)
    assert any("event 1" in anomaly and "not in the inbox" in anomaly for anomaly in found)


def test_an_event_whose_outcome_is_open_may_be_there_or_not_but_once_and_in_order() -> None:
    open_one = [*posted()[:2], Posted(2, uncertain=1)]
    assert check_inbox(open_one, rows()[:2], EXPLAINED) == []
    assert check_inbox(open_one, rows(), EXPLAINED) == []
    assert any("2 times" in anomaly for anomaly in check_inbox(open_one, [*rows(), rows()[2]], EXPLAINED))
    assert any("out of order" in anomaly for anomaly in check_inbox(open_one, [rows()[2], *rows()[:2]], EXPLAINED))


def test_an_event_that_was_answered_not_appended_and_is_there_is_named() -> None:
    refused = [*posted()[:2], Posted(2)]
    assert check_inbox(refused, rows()[:2], EXPLAINED) == []
    assert any("answered not_appended" in anomaly for anomaly in check_inbox(refused, rows(), EXPLAINED))


def attempted(number: int, following: Retry | Dead | None) -> Attempted:
    return Attempted(
        v=1, event_id=IDS[0], organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, attempt=number, started_at_ms=1, duration_ms=1,
        outcome="failed" if following else "delivered", worker="w", next=following,
    )  # fmt: skip


PLAN = Planned(v=1, event_id=IDS[0], organization=ORGANIZATION, mode="live", accepted_offset=0, endpoint_ids=[ENDPOINT])
SECOND = Leg(IDS[0], ENDPOINT, 2, 0)
GOOD: list[JournalRecord] = [PLAN, attempted(1, Retry(attempt=2, not_before_ms=1)), attempted(2, None)]


def deliveries(journal: list[JournalRecord], legs: list[Leg], copies_max: int = 1) -> list[str]:
    return check_deliveries([IDS[0]], [ENDPOINT], journal, legs, copies_max=copies_max)


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


def test_one_copy_of_a_worker_that_stood_still_is_no_anomaly_and_a_fork_is() -> None:
    first, second = GOOD[1], GOOD[2]
    assert deliveries([PLAN, first, first, second], [SECOND, SECOND], copies_max=2) == []
    assert any("forked" in anomaly for anomaly in deliveries([PLAN, first, first, second, second], [SECOND, SECOND], copies_max=2))
    assert any("journalled 3 times" in anomaly for anomaly in deliveries([PLAN, first, first, first, second], [SECOND], copies_max=2))


GIVEN_UP: list[JournalRecord] = [PLAN, attempted(1, Dead(reason="gone"))]
LETTER = (IDS[0], ENDPOINT)
OTHER = ids.endpoint_id(2, bytes(10))


@pytest.mark.parametrize(
    ("events", "endpoints", "journal", "legs", "dead", "named"),
    [
        ([], [ENDPOINT], GOOD, [], [], "without being in an inbox"),
        (IDS[:1], [OTHER], GOOD, [], [], "an endpoint nobody made"),
        (IDS[:1], [ENDPOINT], GOOD, [Leg(IDS[3], ENDPOINT, 2, 0)], [], "without being in an inbox"),
        (IDS[:1], [ENDPOINT], GIVEN_UP, [], [], "no dead letter"),
        (IDS[:1], [ENDPOINT], GOOD, [SECOND], [LETTER], "the journal knows nothing of"),
        (IDS[:1], [ENDPOINT], GIVEN_UP, [], [LETTER, LETTER], "2 dead letters"),
    ],
)
def test_a_delivery_nobody_asked_for_and_a_wrong_dead_letter_are_named(
    events: list[str], endpoints: list[str], journal: list[JournalRecord], legs: list[Leg], dead: list[tuple[str, str]], named: str
) -> None:
    assert check_strangers(IDS[:1], [ENDPOINT], GOOD, [SECOND], []) == []
    assert check_strangers(IDS[:1], [ENDPOINT], GIVEN_UP, [], [LETTER]) == []
    assert any(named in anomaly for anomaly in check_strangers(events, endpoints, journal, legs, dead))


HOOK = Hook(IDS[0], "/steady/0", b'{"id":"%b","type":"t","data":{ "n":1.0 }}' % IDS[0].encode(), True)
INBOX: dict[str, bytes] = {IDS[0]: b'{ "n":1.0 }'}


@pytest.mark.parametrize(
    ("hooks", "named"),
    [
        ([HOOK._replace(verified=False)], "wrong signature"),
        ([HOOK._replace(verified=None)], "wrong signature"),
        ([HOOK._replace(event_id=IDS[1])], "no inbox"),
        ([HOOK._replace(body=HOOK.body.replace(b"1.0", b"1"))], "other bytes"),
        ([HOOK._replace(body=HOOK.body.replace(IDS[0].encode(), IDS[1].encode()))], "other bytes"),
        ([HOOK, HOOK._replace(body=HOOK.body.replace(b'"t"', b'"u"'))], "different bodies"),
    ],
)
def test_a_bad_webhook_is_named(hooks: list[Hook], named: str) -> None:
    assert check_webhooks(INBOX, [HOOK, HOOK]) == []
    assert any(named in anomaly for anomaly in check_webhooks(INBOX, hooks))


def test_an_event_that_comes_after_a_later_one_is_named_and_one_that_comes_twice_is_not() -> None:
    first, second, third = (Hook(one, "/fifo/0", b"", True) for one in IDS[:3])
    assert check_order(IDS[:3], [first, first, second, second, third]) == []
    assert check_order(IDS[:3], [first, second, first, third]) == ["/fifo/0: event 0 came after event 1"]


def answered(number: int, status: int, started_at_ms: int, following: Retry | None = None) -> Attempted:
    return msgspec.structs.replace(attempted(number, following), status=status, started_at_ms=started_at_ms)


SEEN = [HOOK._replace(at_ms=1_000), HOOK._replace(at_ms=2_600)]
HISTORY: list[JournalRecord] = [PLAN, answered(1, 500, 990, Retry(attempt=2, not_before_ms=2_500)), answered(2, 204, 2_590)]


def history(hooks: list[Hook], journal: list[JournalRecord], deaths: int) -> list[str]:
    return check_history(hooks, {HOOK.path: ENDPOINT}, journal, (1.5,), deaths=deaths)


@pytest.mark.parametrize(
    ("hooks", "journal", "deaths", "named"),
    [
        ([*SEEN, SEEN[1]], HISTORY, 0, "3 attempts seen, 2 in the journal"),
        ([*SEEN, SEEN[1], SEEN[1]], HISTORY, 1, "4 attempts seen, 2 in the journal, 1 deaths"),
        (SEEN, HISTORY[:2], 0, "2 attempts seen, 1 in the journal"),
        (SEEN[:1], HISTORY, 0, "2 answers in the journal, 1 attempts seen"),
        (SEEN, [*HISTORY[:2], answered(2, 204, 2_499)], 0, "attempt 2 began 1 ms early"),
        ([SEEN[0], SEEN[1]._replace(at_ms=2_499)], HISTORY, 0, "saw a pause of 1.499 s"),
    ],
)
def test_an_attempt_that_is_not_in_the_history_or_came_early_is_named(
    hooks: list[Hook], journal: list[JournalRecord], deaths: int, named: str
) -> None:
    assert history(SEEN, HISTORY, 0) == []
    assert history([*SEEN, SEEN[1]], HISTORY, 1) == []
    copy = answered(1, 500, 4_000, Retry(attempt=2, not_before_ms=5_500))
    assert history([*SEEN, SEEN[1]], [*HISTORY, copy], 0) == [], "a copy leads to nothing"
    assert any(named in anomaly for anomaly in history(hooks, journal, deaths))


def test_where_one_attempt_is_in_no_journal_and_one_reached_nobody_pauses_are_not_compared() -> None:
    """Three were seen and three are in the journal, and they are not the same three."""
    unanswered = msgspec.structs.replace(attempted(2, Retry(attempt=3, not_before_ms=2_650)), status=None, started_at_ms=2_600)
    journal: list[JournalRecord] = [PLAN, answered(1, 500, 990, Retry(attempt=2, not_before_ms=2_500)), unanswered, answered(3, 204, 2_700)]
    assert history([HOOK._replace(at_ms=at_ms) for at_ms in (1_000, 1_200, 2_710)], journal, 1) == []


def test_every_corruption_put_into_a_long_history_by_chance_is_found() -> None:
    """Not only those that were thought of: for many seeds an event is lost, doubled, moved, changed, or swapped with a stranger's."""
    for seed in range(300):
        chosen = random.Random(seed)
        size = chosen.randrange(2, 60)
        names = [E(1_000 + n, seed.to_bytes(10)) for n in range(size)]
        events = [Posted(n, created=[names[n]]) for n in range(size)]
        inbox = [Row(names[n], events[n].body) for n in range(size)]
        told: dict[str, tuple[str, str | None]] = dict.fromkeys(names, ("accepted", None))
        assert check_inbox(events, inbox, told) == []
        at, other = chosen.sample(range(size), 2)
        kind = chosen.choice(("lost", "doubled", "moved", "changed", "swapped"))
        if kind == "lost":
            del inbox[at]
        elif kind == "doubled":
            inbox.insert(other, inbox[at])
        elif kind == "moved":
            inbox.insert(other, inbox.pop(at))
        elif kind == "changed":
            where = chosen.randrange(len(inbox[at].payload))
            inbox[at] = inbox[at]._replace(payload=inbox[at].payload[:where] + b"#" + inbox[at].payload[where + 1 :])
        else:
            inbox[at], inbox[other] = inbox[at]._replace(payload=inbox[other].payload), inbox[other]._replace(payload=inbox[at].payload)
        assert check_inbox(events, inbox, told), f"seed {seed}: {kind} at {at}"
