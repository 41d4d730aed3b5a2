from __future__ import annotations

import json
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from ingest.append import not_appended, unknown
from ingest.idempotency import Outcome
from schemas import codec
from schemas.problems import UNAVAILABLE
from tests.unit.ingest.api import HEADERS, SETTINGS, Api, slug
from tests.unit.ingest.fakes import HELD, ORGANIZATION, PRINCIPAL


@pytest.fixture
def api() -> Api:
    return Api()


async def test_201_names_the_event_and_the_record_holds_what_was_sent(api: Api) -> None:
    answer = await api.post(b'{"type":"a.b", "payload": {"n" : 1.0}, "subject":"s", "occurred_at":"2026-11-24T02:31:23+01:00"}')
    assert answer.status == 201
    assert answer.body == {"id": api.only.id, "status": "pending", "received_at": answer.body["received_at"]}
    assert answer.headers["location"] == f"/events/{api.only.id}"
    assert answer.body["received_at"].endswith("Z")
    assert (bytes(api.only.payload), api.only.subject, api.only.occurred_at) == (b'{"n" : 1.0}', "s", "2026-11-24T02:31:23+01:00")
    assert (api.only.organization, api.only.mode, api.only.dedup_key) == (ORGANIZATION, "test", None)
    assert api.held.told == []


async def test_request_id_and_trace_go_into_the_record_and_a_harmless_request_id_comes_back(api: Api) -> None:
    trace = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"
    answer = await api.post(headers=[*HEADERS, (b"x-request-id", b"mine-1"), (b"traceparent", trace)])
    assert answer.headers["x-request-id"] == "mine-1"
    headers = api.log.headers[0]
    assert headers[codec.HEADER_REQUEST_ID] == b"mine-1"
    assert headers[codec.HEADER_EVENT_ID] == api.only.id.encode()
    assert (headers[codec.HEADER_TRACEPARENT] or b"").split(b"-")[1] == b"ab" * 16
    assert set(dict(codec.STANDARD_HEADERS)) <= set(headers)


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 65, b"\xff", b"a\nb"])
async def test_any_other_request_id_is_replaced(value: bytes, api: Api) -> None:
    for path in ("/events", "/health", "/nothing"):
        answer = await api.call("GET", path, [(b"x-request-id", value)])
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_keyed_event_is_reserved_appended_and_confirmed(api: Api) -> None:
    assert (await api.post(idempotency_key="k")).status == 201
    assert api.held.told == [("confirm", api.only.id)]
    assert api.only.dedup_key == "k:k"


async def test_a_takeover_appends_under_the_id_that_holds_the_key(api: Api) -> None:
    api.held.outcomes = ["takeover"]
    assert (await api.post(idempotency_key="k")).body["id"] == HELD
    assert api.only.id == HELD
    assert api.held.told == [("confirm", HELD)]


@pytest.mark.parametrize(
    ("outcome", "status", "problem"), [("duplicate", 409, "duplicate-event"), ("conflict", 422, "idempotency-key-reused")]
)
async def test_a_key_that_is_taken_names_its_event_and_appends_nothing(outcome: Outcome, status: int, problem: str, api: Api) -> None:
    api.held.outcomes = [outcome]
    answer = await api.post(idempotency_key="k")
    assert (answer.status, slug(answer), answer.body["id"]) == (status, problem, HELD)
    assert answer.headers["location"] == f"/events/{HELD}"
    assert api.log.events == []


async def test_a_pending_key_is_waited_for(api: Api) -> None:
    api.held.outcomes = ["pending", "pending", "duplicate"]
    assert (await api.post(idempotency_key="k")).status == 409


async def test_a_key_that_stays_pending_is_409_with_the_time_its_lease_has_left(api: Api) -> None:
    api.held.outcomes = ["pending"]
    answer = await api.post(idempotency_key="k")
    assert (answer.status, slug(answer), answer.headers["retry-after"]) == (409, "request-in-flight", "2")
    assert api.log.events == []


async def test_without_redis_the_event_goes_through_alone(api: Api) -> None:
    api.tick.up = False
    assert (await api.post(idempotency_key="k")).status == 201
    assert (await api.post()).status == 201
    assert len(api.log.events) == 2


async def test_a_redis_that_goes_after_the_append_changes_nothing(api: Api) -> None:
    api.log.on_append = lambda: setattr(api.tick, "up", False)
    assert (await api.post(idempotency_key="k")).status == 201


async def test_what_was_certainly_not_appended_gives_its_key_back(api: Api) -> None:
    api.log.error = not_appended("Full.")
    answer = await api.post(idempotency_key="k")
    assert (answer.status, answer.body["outcome"]) == (503, "not_appended")
    assert int(answer.headers["retry-after"]) > 0
    assert [what for what, _ in api.held.told] == ["release"]


async def test_an_unknown_outcome_keeps_its_key(api: Api) -> None:
    api.log.error = unknown()
    answer = await api.post(idempotency_key="k")
    assert (answer.status, answer.body["outcome"]) == (503, "unknown")
    assert api.held.told == []


async def test_a_log_that_does_not_answer_in_time_is_an_unknown_outcome(api: Api) -> None:
    api.log.slow_s = 60
    answer = await api.post(idempotency_key="k")
    assert (answer.status, answer.body["outcome"]) == (503, "unknown")
    assert api.held.told == []


async def test_a_key_that_cannot_be_checked_is_503_not_appended(api: Api) -> None:
    api.auth.known, api.auth.principal, api.auth.error = False, None, UNAVAILABLE
    answer = await api.post()
    assert (answer.status, slug(answer), answer.body["outcome"]) == (503, "unavailable", "not_appended")
    api.auth.slow_s = 60
    answer = await api.post()
    assert (answer.status, slug(answer), answer.body["outcome"]) == (503, "unavailable", "not_appended")


async def test_a_key_revoked_while_cached_appends_nothing_and_keeps_no_reservation(api: Api) -> None:
    api.tick.on_trip = api.auth.revoke
    answer = await api.post()
    assert answer.status == 401
    assert "ratelimit" not in answer.headers  # which a stranger's key is not told either
    assert api.log.events == []


async def test_a_keyed_request_whose_api_key_was_revoked_gives_its_reservation_back(api: Api) -> None:
    api.tick.on_trip = api.auth.revoke
    assert (await api.post(idempotency_key="k")).status == 401
    assert [what for what, _ in api.held.told] == ["release"]
    assert api.log.events == []


async def test_a_scope_is_needed(api: Api) -> None:
    api.auth.principal = PRINCIPAL._replace(scopes=("inbox:read",))
    assert slug(await api.post()) == "forbidden"


async def test_a_body_too_long_is_refused_by_its_length_or_while_it_comes(api: Api) -> None:
    limit = SETTINGS.payload_bytes_max + SETTINGS.body_overhead_bytes_max
    told = await api.post(headers=[*HEADERS, (b"content-length", b"%d" % (limit + 1))])
    assert (told.status, slug(told), told.headers["connection"], api.read) == (413, "body-too-large", "close", 0)
    counted = await api.call("POST", "/events", HEADERS, [b" " * 100_000] * 1_000)
    assert (counted.status, slug(counted), counted.headers["connection"], api.read) == (413, "body-too-large", "close", 3)


async def test_a_body_that_stops_coming_is_408(api: Api) -> None:
    answer = await api.call("POST", "/events", HEADERS, [b'{"type"', None, b""])
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert api.log.events == []


async def test_a_caller_that_goes_away_before_its_body_is_whole_appends_nothing(api: Api) -> None:
    assert (await api.call("POST", "/events", HEADERS, [b'{"type":"a","payload":1}', b"gone", b""])).status == 0
    assert api.log.events == []


async def test_the_key_is_checked_before_the_media_type_and_both_before_the_body(api: Api) -> None:
    assert (await api.post(headers=[(b"content-type", b"text/plain")])).status == 401
    assert (await api.post(headers=[(b"x-api-key", b"k"), (b"content-type", b"text/plain")])).status == 415
    assert api.read == 0


async def test_a_failure_of_ours_is_a_problem_that_tells_nothing_about_it(api: Api) -> None:
    api.log.error = cast(Any, RuntimeError("secret detail"))
    with capture_logs() as logged:
        answers = [await api.post(), await api.call("GET", "/breaks")]
    assert [line["event"] for line in logged].count("request.failed") == 2
    for answer in answers:
        assert (answer.status, slug(answer)) == (500, "internal")
        assert "secret" not in json.dumps(answer.body)


async def test_every_counted_answer_carries_what_is_left_of_the_quota(api: Api) -> None:
    api.held.outcomes = ["reserved", "duplicate"]
    answers = [
        await api.post(),
        await api.post(idempotency_key="k"),
        await api.post(idempotency_key="k"),
        await api.post(b"{"),
        await api.post(type="refused.type"),
        await api.post(headers=[(b"x-api-key", b"k"), (b"content-type", b"text/plain")]),
    ]
    assert [answer.status for answer in answers] == [201, 201, 409, 400, 422, 415]
    assert api.quota.taken == [1] * 6
    for left, answer in zip(range(999, 993, -1), answers, strict=True):
        assert answer.headers["ratelimit"] == f'"events";r={left};t=7'
        assert answer.headers["ratelimit-policy"] == '"events";q=1000;w=60'


async def test_past_the_quota_nothing_is_appended_and_no_key_is_kept(api: Api) -> None:
    api.quota.left = 0
    for answer in (await api.post(), await api.post(idempotency_key="k"), await api.post(b"{"), await api.batch([{}])):
        assert (answer.status, slug(answer), answer.headers["retry-after"]) == (429, "quota-exceeded", "7")
    assert api.log.events == []
    assert [what for what, _ in api.held.told] == ["release"]


async def test_nobody_is_counted_before_the_key_is_known(api: Api) -> None:
    api.auth.known, api.auth.principal = False, None
    assert (await api.post()).status == 401
    assert api.quota.taken == []


async def test_an_event_that_breaks_its_types_schema_is_not_appended(api: Api) -> None:
    assert (await api.post(type="refused.type", idempotency_key="k")).status == 422
    assert api.log.events == []
    assert api.held.told == []


async def test_a_schema_that_was_taken_away_refuses_nothing_any_more(api: Api) -> None:
    def taken_away() -> None:
        api.auth.changes, api.types.refused = api.auth.changes + 1, ""

    api.tick.on_trip = taken_away
    assert (await api.post(type="refused.type")).status == 201


async def test_without_redis_the_schema_that_is_known_holds(api: Api) -> None:
    api.tick.up = False
    assert (await api.post(type="refused.type")).status == 422
