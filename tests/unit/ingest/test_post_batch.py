from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from ingest.append import not_appended
from ingest.formats import ITEMS_MAX, BatchFormat, items_of
from schemas.problems import TYPE_PREFIX, ProblemError
from tests.unit.ingest.api import HEADERS, SETTINGS, Answer, Api, slug
from tests.unit.ingest.fakes import HELD


@pytest.fixture
def api() -> Api:
    return Api()


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200
    results: list[dict[str, Any]] = answer.body["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    assert answer.body["appended"] == sum(result["status"] == 201 for result in results)
    assert answer.body["refused"] == len(results) - answer.body["appended"]
    for result in results:
        if result["status"] != 201:
            assert result["problem"]["status"] == result["status"]
            assert result["problem"]["detail"]
    return [result["status"] for result in results]


def slug_of(answer: Answer, place: int) -> str:
    return str(answer.body["results"][place]["problem"]["type"]).removeprefix(TYPE_PREFIX)


async def test_each_event_has_an_answer_in_order_and_one_that_is_wrong_disturbs_no_other(api: Api) -> None:
    events = [{"type": "a", "payload": n} for n in range(5)]
    events[2] = {"type": "not a type", "payload": 2}
    answer = await api.batch(events)
    assert statuses(answer) == [201, 201, 422, 201, 201]
    assert [json.loads(bytes(event.payload)) for event in api.log.events] == [0, 1, 3, 4]
    assert [event.id for event in api.log.events] == [r["event"]["id"] for r in answer.body["results"] if r["status"] == 201]


async def test_keyed_and_keyless_events_are_appended_in_the_order_given(api: Api) -> None:
    events = [{"type": "a", "payload": n, **({"idempotency_key": f"k{n}"} if n % 2 else {})} for n in range(20)]
    assert statuses(await api.batch(events)) == [201] * 20
    assert [json.loads(bytes(event.payload)) for event in api.log.events] == list(range(20))
    assert [what for what, _ in api.held.told] == ["confirm"] * 10


async def test_lines_may_be_wrong_each_on_its_own(api: Api) -> None:
    body = b'{"type":"a","payload": {"x" : 1} }\r\n\n{"type":\n{"type":"a","payload":2}\n  \n[]'
    answer = await api.batch(body, b"application/x-ndjson")
    assert statuses(answer) == [201, 400, 201, 422]
    assert [bytes(event.payload) for event in api.log.events] == [b'{"x" : 1}', b"2"]


@pytest.mark.parametrize("between", [b",", b" ,\r\n\t"])
def test_items_are_cut_where_they_stand_whatever_is_in_their_strings(between: bytes) -> None:
    items = [
        b'"\\ud800"',
        b"[ 1 , 2 ]",
        b'{"a":"\\uDFFF,\\"]","b":"\\ud83d\\ude00"}',
        b'"\\\\ud800"',
        b'"\\\\\\ud800"',
        b"-1e5",
        b'"\xff"',
    ]
    assert items_of(b" [ " + between.join(items) + b" ] ", "array") == items


async def test_a_cloudevents_batch_is_taken(api: Api) -> None:
    events = [{"specversion": "1.0", "id": str(n), "source": "s", "type": "t", "data": n} for n in range(3)]
    events[1]["specversion"] = "0.3"
    assert statuses(await api.batch(events, b"application/cloudevents-batch+json; charset=utf-8")) == [201, 422, 201]
    assert [event.dedup_key for event in api.log.events] == ["c:1:s0", "c:1:s2"]


async def test_the_same_key_twice_in_a_batch_makes_one_event(api: Api) -> None:
    api.held.outcomes = ["reserved", "duplicate"]
    answer = await api.batch([{"type": "a", "payload": 1, "idempotency_key": "k"}] * 3)
    assert statuses(answer) == [201, 409, 409]
    assert len(api.log.events) == 1
    assert answer.body["results"][1]["problem"]["id"] == HELD


async def test_an_event_whose_key_is_in_flight_is_waited_for_without_holding_up_the_others(api: Api) -> None:
    api.held.outcomes = ["pending", "reserved", "pending", "duplicate"]
    events = [{"type": "a", "payload": n, "idempotency_key": f"k{n}"} for n in range(2)]
    assert statuses(await api.batch(events)) == [409, 201]


async def test_items_past_the_quota_are_429_and_the_others_go_through(api: Api) -> None:
    api.quota.left = 2
    answer = await api.batch([{"type": "a", "payload": n} for n in range(4)])
    assert statuses(answer) == [201, 201, 429, 429]
    assert api.quota.taken == [4]
    assert answer.body["results"][3]["retry_after_s"] == 7
    assert answer.headers["ratelimit"] == '"events";r=0;t=7'


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (ITEMS_MAX, 200), (ITEMS_MAX + 1, 422)])
async def test_a_batch_has_1_to_1000_events(count: int, status: int, api: Api) -> None:
    api.quota.left = 2 * ITEMS_MAX
    assert (await api.batch([{"type": "a", "payload": 1}] * count)).status == status
    assert (await api.batch(b'{"type":"a","payload":1}\n' * count, b"application/jsonl")).status == status
    assert len(api.log.events) == (2 * count if status == 200 else 0)


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"", 400, "malformed-json"),
        (b"[{]", 400, "malformed-json"),
        (b"[1,2,]", 400, "malformed-json"),
        (b"[" + b"1," * 2_000 + b"nonsense]", 400, "malformed-json"),
        (b"[1]]", 400, "malformed-json"),
        (b'\xef\xbb\xbf[{"type":"a","payload":1}]', 400, "malformed-json"),
        ('[{"type":"a","payload":1}]'.encode("utf-16"), 400, "malformed-json"),
        (b"[" + b"[" * 2_000 + b"]" * 2_000 + b"]", 422, "invalid-request"),
        (b'{"type":"a","payload":1}', 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
    ],
)
async def test_what_is_no_batch_is_refused_whole(body: bytes, status: int, problem: str, api: Api) -> None:
    answer = await api.batch(body)
    assert (answer.status, slug(answer)) == (status, problem)
    assert api.log.events == []


async def test_an_event_too_long_to_be_sent_alone_is_refused_unread_and_disturbs_no_other(api: Api) -> None:
    limit = SETTINGS.payload_bytes_max + SETTINGS.body_overhead_bytes_max
    fits = b'{"type":"a","payload":2}'
    fits += b" " * (limit - len(fits))
    answer = await api.batch(
        b"\n".join([b'{"type":"a","payload":1}', b"[" * (limit + 1), b" " + fits[:-1], fits + b" 1"]), b"application/jsonl"
    )
    assert statuses(answer) == [201, 413, 201, 413]
    assert slug_of(answer, 1) == "payload-too-large"


@pytest.mark.parametrize(
    ("body", "batch_format"),
    [(b"[" + b"1," * 1_000_000 + b"1]", "array"), (b"1\n" * 1_000_000, "lines"), (b"\n \r" * 1_000_000, "lines")],
)
def test_a_batch_of_far_too_many_is_refused_without_holding_them(body: bytes, batch_format: BatchFormat) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProblemError) as caught:
            items_of(body, batch_format)
        assert tracemalloc.get_traced_memory()[1] < len(body) + 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.problem.slug == "invalid-request"


async def test_media_type_idempotency_header_and_size_are_checked_before_the_body(api: Api) -> None:
    assert (await api.batch([], b"text/plain")).status == 415
    keyed = await api.call("POST", "/events/batch", [*HEADERS, (b"idempotency-key", b'"k"')], [b"[]"])
    assert (keyed.status, slug(keyed)) == (400, "invalid-header")
    long = await api.call("POST", "/events/batch", [*HEADERS, (b"content-length", b"%d" % (SETTINGS.batch_bytes_max + 1))])
    assert (long.status, api.read) == (413, 0)


async def test_a_revoked_key_appends_nothing_of_a_batch_and_keeps_no_reservation(api: Api) -> None:
    api.tick.on_trip = api.auth.revoke
    answer = await api.batch([{"type": "a", "payload": 1, "idempotency_key": "k"}, {"type": "a", "payload": 2}])
    assert answer.status == 401
    assert api.log.events == []
    assert [what for what, _ in api.held.told] == ["release"]


async def test_a_log_that_refuses_says_so_for_each_event(api: Api) -> None:
    api.log.error = not_appended("Full.")
    answer = await api.batch([{"type": "a", "payload": 1, "idempotency_key": "k"}, {"type": "a", "payload": 2}])
    assert statuses(answer) == [503, 503]
    assert answer.body["results"][0]["problem"]["outcome"] == "not_appended"
    assert [what for what, _ in api.held.told] == ["release"]


async def test_without_redis_a_batch_goes_through(api: Api) -> None:
    api.tick.up = False
    assert statuses(await api.batch([{"type": "a", "payload": n, "idempotency_key": f"k{n}"} for n in range(3)])) == [201] * 3
