"""Batches of a wrong shape are refused whole; of the others each event is judged alone, in its order (RELIABILITY row 40)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.flow.hostile.judged import Caller, assert_refused, little_memory, native
from tests.flow.raw import (
    CHUNKED,
    EVENT_BODY,
    PAYLOAD_MAX,
    Header,
    RawConnection,
    assert_honest_works,
    assert_problem,
    nothing_appended,
    request_bytes,
)
from triggers.provision import Tenant, make_tenant
from triggers.system import System, until

BATCH_MAX = 5_242_880
ARRAY, LINES, CLOUDEVENTS = "application/json", "application/x-ndjson", "application/cloudevents-batch+json"
#: What is no batch: its content type, its body, and the answer.
SHAPES: dict[str, tuple[str, bytes, int, str]] = {
    "no events": (ARRAY, b"[]", 422, "invalid-request"),
    "no lines": (LINES, b"\n \r\n\t\n", 422, "invalid-request"),
    "no body": (LINES, b" ", 422, "invalid-request"),
    "no CloudEvents": (CLOUDEVENTS, b"[]", 422, "invalid-request"),
    "1,001 events": (ARRAY, b"[" + b",".join([EVENT_BODY] * 1_001) + b"]", 422, "invalid-request"),
    "1,001 lines": (LINES, b"\n".join([EVENT_BODY] * 1_001), 422, "invalid-request"),
    "millions of numbers": (ARRAY, b"[" + b"1," * (BATCH_MAX // 2 - 2) + b"1]", 422, "invalid-request"),
    "millions of lines": (LINES, b"1\n" * (BATCH_MAX // 2), 422, "invalid-request"),
    "millions of empty lines": (LINES, b"\n" * BATCH_MAX, 422, "invalid-request"),
    "one event": (ARRAY, EVENT_BODY, 422, "invalid-request"),
    "an object of events": (ARRAY, b'{"events":[%b]}' % EVENT_BODY, 422, "invalid-request"),
    "null": (ARRAY, b"null", 422, "invalid-request"),
    "one too deep to find the next": (ARRAY, b"[%b,%b]" % (EVENT_BODY, b"[" * 100_000 + b"]" * 100_000), 422, "invalid-request"),
    "half an array": (ARRAY, b"[%b,%b" % (EVENT_BODY, EVENT_BODY), 400, "malformed-json"),
    "a comma too many": (ARRAY, b"[%b,]" % EVENT_BODY, 400, "malformed-json"),
    "an event that is no JSON": (ARRAY, b"[%b,{'a':1}]" % EVENT_BODY, 400, "malformed-json"),
    "lines named an array": (ARRAY, b"%b\n%b" % (EVENT_BODY, EVENT_BODY), 422, "invalid-request"),
    "something behind it": (ARRAY, b"[%b] x" % EVENT_BODY, 400, "malformed-json"),
    "a byte order mark": (ARRAY, b"\xef\xbb\xbf[%b]" % EVENT_BODY, 400, "malformed-json"),
    "in UTF-16": (ARRAY, "[1]".encode("utf-16"), 400, "malformed-json"),
    "NaN": (ARRAY, b"[NaN]", 400, "malformed-json"),
}
#: What is wrong with the event in the middle, in an array and among lines.
WRONG: dict[str, tuple[bytes, int, str]] = {
    "null": (b"null", 422, "invalid-event"),
    "a batch": (b"[%b]" % EVENT_BODY, 422, "invalid-event"),
    "a string": (b'"x"', 422, "invalid-event"),
    "no payload": (b'{"type":"a.b"}', 422, "invalid-event"),
    "another's member": (b'{"type":"a.b","payload":1,"organization":"org_x"}', 422, "invalid-event"),
    "a type that is none": (b'{"type":"a b","payload":1}', 422, "invalid-event"),
    "a name twice": (b'{"type":"a.b","payload":1,"payload":2}', 422, "invalid-event"),
    "300 levels": (native(b"[" * 300 + b"]" * 300), 422, "invalid-event"),
    "a huge exponent": (native(b"1e131071"), 422, "invalid-event"),
    "NUL": (native(b'"\\u0000"'), 422, "invalid-event"),
    "half a pair": (native(b'"\\ud800"'), 422, "invalid-event"),
    "not UTF-8": (native(b'"\xff"'), 400, "malformed-json"),
    "a byte too many": (native(b'"' + b"x" * (PAYLOAD_MAX - 1) + b'"'), 413, "payload-too-large"),
    "four megabytes": (native(b"[" + b"[]," * 1_300_000 + b"1]"), 413, "payload-too-large"),
}
#: What would be no array at all, among lines.
WRONG_LINES: dict[str, tuple[bytes, int, str]] = {
    "half an event": (EVENT_BODY[:-4], 400, "malformed-json"),
    "two events": (EVENT_BODY + EVENT_BODY, 400, "malformed-json"),
    "a byte order mark": (b"\xef\xbb\xbf" + EVENT_BODY, 400, "malformed-json"),
    "arrays without end": (b"[" * 100_000, 422, "invalid-event"),
    "NaN": (native(b"NaN"), 400, "malformed-json"),
}


def batch(key: str, body: bytes, content_type: str = ARRAY, *headers: Header) -> bytes:
    return request_bytes("POST", "/events/batch", [("X-API-Key", key), ("Content-Type", content_type), *headers], body)


def results_of(document: dict[str, Any]) -> list[tuple[int, str]]:
    """Of each event its status, and the slug of its problem or its id."""
    assert [result["index"] for result in document["results"]] == list(range(len(document["results"])))
    assert document["appended"] == sum(result["status"] == 201 for result in document["results"])
    return [(r["status"], r["event"]["id"] if r["status"] == 201 else r["problem"]["type"].rpartition(":")[2]) for r in document["results"]]


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_no_batch_is_refused_whole_and_costs_little(name: str, system: System, tenant: Tenant) -> None:
    content_type, body, status, slug = SHAPES[name]
    began_s = time.monotonic()
    with little_memory(system):
        assert_refused(system, tenant.key, batch(tenant.key, body, content_type), status, slug)
    assert time.monotonic() - began_s < 5


def test_a_batch_above_its_limit_is_413_whether_it_says_its_length_or_not(system: System, tenant: Tenant) -> None:
    head = batch(tenant.key, b"")[:-2]
    with nothing_appended(system.settings):
        for length in (BATCH_MAX + 1, 10**12):
            with RawConnection(system.settings) as connection:
                connection.send(head + b"Content-Length: %d\r\n\r\n" % length)
                assert_problem(connection.answer(), 413, "body-too-large", closes=True)
        with RawConnection(system.settings) as connection:
            connection.send(head + CHUNKED + b"\r\n\r\n", *[b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 200)
            assert_problem(connection.answer(), 413, "body-too-large", closes=True)
    assert_honest_works(system, tenant.key)


def test_a_key_for_a_whole_batch_is_refused(system: System, tenant: Tenant) -> None:
    sent = batch(tenant.key, b"[%b]" % EVENT_BODY, ARRAY, ("Idempotency-Key", '"k"'))
    assert_refused(system, tenant.key, sent, 400, "invalid-header")


@pytest.mark.parametrize(
    ("name", "content_type"), [*((name, ARRAY) for name in WRONG), *((name, LINES) for name in (*WRONG, *WRONG_LINES))]
)
def test_one_wrong_event_disturbs_no_other(name: str, content_type: str, system: System, tenant: Tenant) -> None:
    wrong, status, slug = {**WRONG, **WRONG_LINES}[name]
    good = [native(b'"before"'), native(b'"after"')]
    items = [good[0], wrong, good[1]]
    body = b"[%b]" % b",".join(items) if content_type == ARRAY else b"\r\n".join(items)
    with Caller(system, tenant.key) as caller, little_memory(system):
        answer = caller.send(batch(tenant.key, body, content_type))
        assert answer.status == 200, answer.body[:300]
        first, second, third = results_of(answer.document)
        assert (first[0], second, third[0]) == (201, (status, slug), 201)
        assert len(answer.body) < 4_096
        alone = b"[%b]" % wrong if content_type == ARRAY else wrong
        with nothing_appended(system.settings):
            answer = caller.send(batch(tenant.key, alone, content_type))
            assert (answer.status, results_of(answer.document)) == (200, [(status, slug)])
        assert caller.post(EVENT_BODY).status == 201


def test_a_wrong_cloudevent_disturbs_no_other(system: System, tenant: Tenant) -> None:
    events = [{"specversion": "1.0", "id": f"batch-{n}", "source": "s", "type": "a.b", "data": n} for n in range(5)]
    events[1] |= {"specversion": "0.3"}
    events[2] |= {"org_id": "org_x"}
    events[3] |= {"data_base64": "AA=="}
    with Caller(system, tenant.key) as caller:
        answer = caller.send(batch(tenant.key, json.dumps(events).encode(), CLOUDEVENTS))
    assert [status for status, _ in results_of(answer.document)] == [201, 422, 422, 422, 201]


def test_the_same_key_twice_inside_is_one_event_and_another_body_under_it_a_conflict(system: System, reader: Tenant) -> None:
    key = b',"idempotency_key":"twice in a batch"'
    items = [native(b"1", key), native(b"2"), native(b"1", key), native(b"3", key), native(b" 1", key)]
    with Caller(system, reader.key) as caller:
        document = caller.send(batch(reader.key, b"[%b]" % b",".join(items))).document
        results = results_of(document)
        assert [status for status, _ in results] == [201, 201, 409, 422, 409]
        assert [slug for _, slug in results[2:]] == ["duplicate-event", "idempotency-key-reused", "duplicate-event"]
        assert {document["results"][n]["problem"]["id"] for n in (2, 3, 4)} == {results[0][1]}
        until(lambda: caller.status(results[1][1]) == "accepted", 30, "the events being accepted", 0.05)
        with nothing_appended(system.settings):
            again = results_of(caller.send(batch(reader.key, b"[%b]" % items[0])).document)
        assert again == [(409, "duplicate-event")]
        alone = caller.post(items[0])
        assert (alone.status, alone.document["id"]) == (409, results[0][1])


def test_a_thousand_events_stand_in_the_inbox_in_the_order_they_were_sent(system: System) -> None:
    owner = make_tenant(system.settings, "in order")
    items = [native(b"%d" % n, b',"idempotency_key":"o-%d"' % n if n % 3 == 0 else b"") for n in range(1_000)]
    with Caller(system, owner.key) as caller:
        results = results_of(caller.send(batch(owner.key, b"\n".join(items), LINES)).document)
        assert {status for status, _ in results} == {201}
        until(lambda: len(caller.inbox()) == 1_000, 30, "the events in the inbox", 0.1)
        inbox = caller.inbox()
    assert list(inbox) == [event_id for _, event_id in results]
    assert [item["payload"] for item in inbox.values()] == [b"%d" % n for n in range(1_000)]


def test_the_largest_batch_of_the_largest_payloads_is_taken_whole(system: System, tenant: Tenant) -> None:
    item = native(b'"' + b"x" * (PAYLOAD_MAX - 2) + b'"')
    body = b"\n".join([item] * 19)
    body += b"\n" * (BATCH_MAX - len(body))
    with Caller(system, tenant.key) as caller, little_memory(system):
        assert [status for status, _ in results_of(caller.send(batch(tenant.key, body, LINES)).document)] == [201] * 19
