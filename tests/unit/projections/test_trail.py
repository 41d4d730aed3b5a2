"""Evidence about one event: the same story whatever order it came in and however often; nothing of other events'."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from access.envelopes import DataKey
from projections.explain import Explained
from projections.story import document
from projections.trail import Trail
from schemas import codec, ids, keys
from schemas.deliveries import Attempted, Dead, DeadLetter, PastAttempt, Planned, Requested, Retry, RetryTask
from schemas.events import Ack, Duplicate, Ingested, Origin
from schemas.records import Record
from schemas.topics import (
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    INBOX_ACKS,
)

ORGANIZATION, OTHERS = (ids.organization_id(number, bytes(10)) for number in (1, 2))
EVENT, OTHER_EVENT = (ids.event_id(number, bytes(10)) for number in (5, 6))
GOOD, BAD = (ids.endpoint_id(number, bytes(10)) for number in (1, 2))
KEY = keys.record_key(ORGANIZATION)
OF: dict[str, Any] = {"v": 1, "organization": ORGANIZATION, "mode": "live"}


def ingested(event_id: ids.EventId = EVENT, **changed: Any) -> Ingested:
    made = Ingested(**OF, id=event_id, type="a.b", received_at_ms=5, fingerprint="0" * 64, payload=Raw(b"1"))
    return msgspec.structs.replace(made, **changed)


def attempt(endpoint: ids.EndpointId, number: int, following: Retry | Dead | None) -> Attempted:
    return Attempted(
        **OF, event_id=EVENT, endpoint_id=endpoint, attempt=number, outcome="failed" if following else "delivered", started_at_ms=number,
        duration_ms=1, worker="w", status=500 if following else 204, next=following,
    )  # fmt: skip


def plan(*endpoints: ids.EndpointId) -> Planned:
    return Planned(**OF, event_id=EVENT, accepted_offset=20, endpoint_ids=list(endpoints))


def leg(number: int, hop: int) -> RetryTask:
    return RetryTask(
        **OF, event_id=EVENT, endpoint_id=BAD, attempt=number, not_before_ms=9_000 + hop, hop=hop, history=[], event=Raw(b"{}")
    )


HEADERS = [("event-id", EVENT.encode()), ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), ("request-id", b"req_1")]
VALUE = codec.encode(ingested())
RECORDS: list[tuple[str, Record]] = [
    (EVENTS_INGESTED, Record(10, 100, KEY, VALUE, HEADERS)),
    (EVENTS_INGESTED, Record(12, 110, KEY, VALUE, HEADERS)),  # the API appended it again
    (EVENTS_ACCEPTED, Record(20, 100, KEY, codec.encode_accepted(VALUE, 10, 100), HEADERS)),
    (EVENTS_ACCEPTED, Record(25, 100, KEY, codec.encode_accepted(VALUE, 10, 100), HEADERS)),  # what a crash of dedup leaves behind
    (INBOX_ACKS, Record(31, 400, KEY, codec.encode(Ack(**OF, ids=[EVENT, OTHER_EVENT])), ())),
    (INBOX_ACKS, Record(30, 300, KEY, codec.encode(Ack(**OF, ids=[EVENT])), ())),
    (DELIVERIES_ATTEMPTS, Record(40, 200, KEY, codec.encode(plan(GOOD, BAD)), ())),
    (DELIVERIES_ATTEMPTS, Record(49, 200, KEY, codec.encode(plan(GOOD)), ())),
    (DELIVERIES_ATTEMPTS, Record(41, 200, KEY, codec.encode(attempt(GOOD, 1, None)), ())),
    (DELIVERIES_ATTEMPTS, Record(42, 200, KEY, codec.encode(attempt(BAD, 1, Retry(attempt=2, not_before_ms=8_000))), ())),
    (DELIVERIES_ATTEMPTS, Record(43, 200, KEY, codec.encode(attempt(BAD, 1, Dead(reason="gone"))), ())),  # a copy: the first stays
    ("deliveries.retry.5s", Record(50, 210, KEY, codec.encode(leg(2, 0)), ())),
    ("deliveries.retry.30s", Record(2, 220, KEY, codec.encode(leg(2, 1)), ())),
    # Not of this event, or not of this organization.
    (EVENTS_INGESTED, Record(11, 100, KEY, codec.encode(ingested(OTHER_EVENT, payload=Raw(b'"%b"' % EVENT.encode()))), ())),
    (EVENTS_INGESTED, Record(9, 100, OTHERS.encode(), codec.encode(ingested(organization=OTHERS)), HEADERS)),
    (EVENTS_INGESTED, Record(8, 100, OTHERS.encode(), b"garbage", HEADERS)),
    (DELIVERIES_ATTEMPTS, Record(44, 200, KEY, b'{"v":1,"event_id":"%b"}' % EVENT.encode(), ())),
]  # fmt: skip


def story(records: list[tuple[str, Record]]) -> dict[str, Any]:
    trail = Trail(EVENT, ORGANIZATION)
    for topic, record in records:
        trail.learn(topic, 3, record)
    return document(Explained(trail))


def test_what_an_event_went_through_is_told_from_its_records() -> None:
    made = story(RECORDS)
    assert [(copy["offset"], copy["verdict"]) for copy in made["ingested"]] == [(10, "first"), (12, "retried")]
    assert (made["status"], made["trace_id"], made["request_id"]) == ("accepted", "a" * 32, "req_1")
    assert [made[name]["offset"] for name in ("accepted", "ack", "plan")] == [20, 30, 40]
    good, bad = made["deliveries"]
    assert (good["state"], good["next"]) == ("delivered", None)
    assert (bad["state"], [one["offset"] for one in bad["attempts"]]) == ("retrying", [42])
    assert (bad["next"]["waits_on"]["topic"], bad["next"]["hop"]) == ("deliveries.retry.30s", 1)


def test_the_answer_to_an_encrypted_event_is_shown_as_what_it_is() -> None:
    sealed = DataKey(ids.data_key_id(1, bytes(10)), bytes(32)).seal_response(b"body", ingested(), "ep_1\n\n1")
    answers = {4: None, 5: "Ym9keQ==", 6: sealed}
    made = [msgspec.structs.replace(attempt(GOOD, number, None), response=response) for number, response in answers.items()]
    records = [*RECORDS, *((DELIVERIES_ATTEMPTS, Record(80 + n, 1, KEY, codec.encode(one), ())) for n, one in enumerate(made))]
    good, _ = story(records)["deliveries"]
    shown = {one["attempt"]: (one["response_base64"], one["response_sealed"]) for one in good["attempts"] if one["attempt"] in answers}
    assert shown == {4: (None, None), 5: ("Ym9keQ==", None), 6: (None, sealed)}


@pytest.mark.parametrize("seed", range(20))
def test_the_story_is_the_same_in_any_order_and_with_everything_twice(seed: int) -> None:
    shuffled = 2 * RECORDS
    random.Random(seed).shuffle(shuffled)
    assert story(shuffled) == story(RECORDS)


def test_the_first_attempt_that_was_put_off_waits_where_its_last_leg_is() -> None:
    put_off = RetryTask(**OF, event_id=EVENT, endpoint_id=GOOD, attempt=1, not_before_ms=7, parked=3, hop=2, history=[], event=Raw(b"{}"))
    planned = [one for one in RECORDS if one[0] in (EVENTS_INGESTED, EVENTS_ACCEPTED) or one[1].offset == 40]
    good, bad = story([*planned, ("deliveries.retry.2m", Record(4, 1, KEY, codec.encode(put_off), ()))])["deliveries"]
    assert good["state"] == bad["state"] == "planned"
    assert (good["next"]["attempt"], good["next"]["put_off"], good["next"]["waits_on"]["offset"]) == (1, 3, 4)
    assert bad["next"] == {"attempt": 1, "not_before": None, "waits_on": None, "hop": None, "put_off": 0}


def test_a_delivery_given_up_names_its_dead_letter() -> None:
    past = PastAttempt(attempt=1, started_at_ms=1, status=500)
    letter = DeadLetter(**OF, event_id=EVENT, endpoint_id=BAD, reason="exhausted", dead_at_ms=2, history=[past], event=Raw(b"{}"))
    ended = attempt(BAD, 2, Dead(reason="exhausted"))
    more = [
        (DELIVERIES_ATTEMPTS, Record(60, 1, KEY, codec.encode(ended), ())),
        (DELIVERIES_DEAD, Record(6, 1, KEY, codec.encode(letter), ())),
    ]
    _, bad = story([*RECORDS, *more])["deliveries"]
    assert (bad["state"], bad["next"], bad["dead_letter"]["offset"]) == ("dead", None, 6)


def test_a_round_that_was_asked_for_decides_after_the_first_was_given_up() -> None:
    ended = (DELIVERIES_ATTEMPTS, Record(60, 1, KEY, codec.encode(attempt(BAD, 2, Dead(reason="exhausted"))), ()))
    of_round = ids.round_id(1, bytes(10))
    asked = Requested(**OF, event_id=EVENT, endpoint_id=BAD, round=of_round, cause="redrive")
    records = [*RECORDS, ended, (DELIVERIES_ATTEMPTS, Record(61, 1, KEY, codec.encode(asked), ()))]
    _, bad = story(records)["deliveries"]
    assert (bad["state"], bad["next"]["attempt"], [one["cause"] for one in bad["rounds"]]) == ("planned", 1, ["redrive"])
    again = msgspec.structs.replace(attempt(BAD, 1, Retry(attempt=2, not_before_ms=9)), round=of_round, cause="redrive")
    waits = msgspec.structs.replace(leg(2, 7), round=of_round)
    more = [
        (DELIVERIES_ATTEMPTS, Record(62, 1, KEY, codec.encode(again), ())),
        ("deliveries.retry.5s", Record(70, 1, KEY, codec.encode(waits), ())),
    ]
    _, bad = story([*records, *more])["deliveries"]
    assert (bad["state"], bad["next"]["waits_on"]["offset"], len(bad["attempts"])) == ("retrying", 70, 3)
    done = msgspec.structs.replace(attempt(BAD, 2, None), round=of_round, cause="redrive")
    _, bad = story([*records, *more, (DELIVERIES_ATTEMPTS, Record(63, 1, KEY, codec.encode(done), ()))])["deliveries"]
    assert (bad["state"], bad["next"]) == ("delivered", None)


def test_an_event_that_dedup_has_not_come_to_is_pending_and_one_that_lost_says_to_whom() -> None:
    copies = [one for one in RECORDS if one[0] == EVENTS_INGESTED]
    made = story(copies)
    assert (made["status"], {copy["verdict"] for copy in made["ingested"]}) == ("pending", {"pending"})
    lost = Duplicate(**OF, id=EVENT, type="a.b", original_id=OTHER_EVENT, kind="conflict", ingested=Origin(10, 100))
    made = story([*copies, (EVENTS_DUPLICATES, Record(1, 100, KEY, codec.encode(lost), HEADERS))])
    assert (made["status"], made["lost_to"]["original_id"], made["ingested"][0]["verdict"]) == ("conflict", OTHER_EVENT, "conflict")


def test_a_parked_record_of_the_event_is_told_and_one_of_a_stranger_is_not() -> None:
    error = codec.CodecError("unknown_version", "9")
    headers = [*HEADERS, *codec.rejected_headers(EVENTS_INGESTED, 3, 10, error)]
    parked = [(EVENTS_REJECTED, Record(place, 1, key, b"{}", headers)) for place, key in enumerate((KEY, OTHERS.encode()))]
    made = story([(EVENTS_INGESTED, Record(10, 100, KEY, b"{}", HEADERS)), *parked])
    assert (made["status"], made["ingested"][0]["verdict"], len(made["rejected"])) == ("rejected", "rejected", 1)
