"""Idempotency keys of every spelling, and where one ends and the next begins (RELIABILITY rows 48 to 51)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.flow.hostile.apis import OwnApi
from tests.flow.hostile.judged import Caller, assert_refused, native, posted
from tests.flow.raw import EVENT_BODY, Header, RawAnswer, assert_problem, event_bytes, nothing_appended, request_bytes, talk
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System, until

#: Header values that name a key in two ways, or in a way that is not of RFC 9651.
BAD_HEADERS: dict[str, tuple[bytes, ...]] = {
    "empty": (b"",),
    "blanks": (b"  ",),
    "an empty string": (b'""',),
    "256 letters": (b"k" * 256,),
    "256 letters in quotes": (b'"' + b"k" * 256 + b'"',),
    "8,000 letters": (b"k" * 8_000,),
    "Latin-1": (b"caf\xe9",),
    "UTF-8": ("café".encode(),),
    "UTF-8 in quotes": ('"café"'.encode(),),
    "two words": (b"order 17",),
    "an open string": (b'"order-17',),
    "only a quote": (b'"',),
    "a quote inside": (b'order"17',),
    "a quote that is not escaped": (b'"order"17"',),
    "an escape there is not": (b'"order\\n17"',),
    "a string with a parameter": (b'"order-17"; a=1',),
    "two strings": (b'"a", "b"',),
    "a tab": (b'"a\tb"',),
    "two headers": (b'"a"', b'"b"'),
    "two headers that agree": (b'"a"', b'"a"'),
}
#: The same event under the same key, and what may differ in its sending.
SAME = {
    "as it was": b'{"type":"a.b","payload":{"a":1,"b":[1,2]},"idempotency_key":"%b"}',
    "its members in another order": b'{"idempotency_key":"%b","payload":{"a":1,"b":[1,2]},"type":"a.b"}',
    "blanks around its members": b' { "type" : "a.b" ,\n"payload" :\t{"a":1,"b":[1,2]} , "idempotency_key":"%b" } ',
    "escapes in its type": b'{"type":"\\u0061.b","payload":{"a":1,"b":[1,2]},"idempotency_key":"%b"}',
    "another time": b'{"type":"a.b","payload":{"a":1,"b":[1,2]},"idempotency_key":"%b","occurred_at":"2026-11-24T02:31:23Z"}',
}
OTHER = {
    "a blank in the payload": b'{"type":"a.b","payload":{"a": 1,"b":[1,2]},"idempotency_key":"%b"}',
    "a line feed in the payload": b'{"type":"a.b","payload":{"a":1,"b":[1,2]\n},"idempotency_key":"%b"}',
    "names in another order": b'{"type":"a.b","payload":{"b":[1,2],"a":1},"idempotency_key":"%b"}',
    "a number written otherwise": b'{"type":"a.b","payload":{"a":1.0,"b":[1,2]},"idempotency_key":"%b"}',
    "an escaped letter": b'{"type":"a.b","payload":{"\\u0061":1,"b":[1,2]},"idempotency_key":"%b"}',
    "another type": b'{"type":"a.B","payload":{"a":1,"b":[1,2]},"idempotency_key":"%b"}',
    "a subject": b'{"type":"a.b","payload":{"a":1,"b":[1,2]},"idempotency_key":"%b","subject":"s"}',
}


def fresh() -> str:
    """A key that no other test has used."""
    return f"k{uuid4().hex}"


def keyed(tenant: Tenant, header: str | bytes, body: bytes = EVENT_BODY) -> bytes:
    return event_bytes(tenant.key, headers=[("Idempotency-Key", header)], body=body)


def cloudevent(key: str, source: str, event_id: str) -> bytes:
    headers: list[Header] = [("X-API-Key", key), ("Content-Type", "application/cloudevents+json")]
    event = {"specversion": "1.0", "source": source, "id": event_id, "type": "a.b", "data": 1}
    return request_bytes("POST", "/events", headers, json.dumps(event).encode())


def outcome(answer: RawAnswer) -> tuple[int, str]:
    """The status and the id it names."""
    return answer.status, answer.document["id"]


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_names_no_key_or_two_is_refused(name: str, system: System, tenant: Tenant) -> None:
    sent = event_bytes(tenant.key, headers=[("Idempotency-Key", value) for value in BAD_HEADERS[name]])
    assert_refused(system, tenant.key, sent, 400, "invalid-header")


@pytest.mark.parametrize("character", [0x00, 0x01, 0x0A, 0x0D, 0x1F, 0x7F])
def test_a_control_character_in_the_header_is_no_http_and_in_the_body_no_key(character: int, system: System, tenant: Tenant) -> None:
    assert_refused(system, tenant.key, keyed(tenant, b'"a%cb"' % character), 400, "malformed-request")
    assert_refused(system, tenant.key, posted(tenant, native(b"1", b',"idempotency_key":"a\\u%04xb"' % character)), 422, "invalid-event")


def test_one_key_however_it_is_written_is_one_key(system: System, reader: Tenant) -> None:
    key = fresh() + ':a|b/c"d\\e'
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    with Caller(system, reader.key) as caller:
        first = caller.send(keyed(reader, quoted))
        assert (first.status, first.document["idempotency_window_s"]) == (201, 86_400)
        body = json.dumps({"type": "a.b", "payload": 1, "idempotency_key": key}).encode()
        for again in (keyed(reader, quoted), keyed(reader, f"  {quoted}\t"), posted(reader, body), keyed(reader, quoted, body)):
            answer = caller.send(again)
            assert_problem(answer, 409, "duplicate-event")
            assert (answer.document["id"], answer.header("Location")) == (first.document["id"], f"/events/{first.document['id']}")
        bare = fresh()
        named = caller.send(keyed(reader, bare)).document["id"]
        assert outcome(caller.send(keyed(reader, f'"{bare}"'))) == (409, named)
        differing = json.dumps({"type": "a.b", "payload": 1, "idempotency_key": key + "x"}).encode()
        assert_refused(system, reader.key, keyed(reader, quoted, differing), 422, "invalid-event", field="idempotency_key")


def test_keys_that_look_alike_are_different_keys(system: System, reader: Tenant) -> None:
    base = fresh()
    uuid = str(uuid4())
    alike = [
        base, base.upper(), base + " ", base + ":", base + "::", f"k:{base}", f"{base}:live", f"{base}|1", f"{base}%20", f"{base}\\",
        f"{{{base}}}", "x" * (255 - len(base)) + base, uuid, uuid.upper(), uuid.replace("-", ""),
    ]  # fmt: skip
    with Caller(system, reader.key) as caller:
        answers = [caller.post(json.dumps({"type": "a.b", "payload": 1, "idempotency_key": key}).encode()) for key in alike]
        assert [answer.status for answer in answers] == [201] * len(alike)
        for key, answer in zip(alike, answers, strict=True):
            again = caller.post(json.dumps({"type": "a.b", "payload": 1, "idempotency_key": key}).encode())
            assert outcome(again) == (409, answer.document["id"])


def test_no_two_parts_of_a_key_can_be_cut_elsewhere(system: System, reader: Tenant) -> None:
    base = fresh()
    pairs = [(f"{base}a|b", "c"), (f"{base}a", "b|c"), (f"{base}a|", "b|c"), (f"{base}", "a|b|c"), (f"{base}a", "|b|c")]
    pairs += [(f"{base}a:b", "c"), (f"{base}a", "b:c"), (f"1:{base}", "x"), (f"1:{base}x", "y"), (f"1:{base}", "xy")]
    source = f"{base}:s"
    with Caller(system, reader.key) as caller:
        for sent in pairs:
            assert caller.send(cloudevent(reader.key, *sent)).status == 201
        first = caller.send(cloudevent(reader.key, source, "id")).document["id"]
        spelt = [f"c:{len(source)}:{source}id", f"{len(source)}:{source}id", f"{source}id"]
        for key in spelt:  # a native key that is spelt as a CloudEvent's is kept
            assert caller.post(native(b"1", b',"idempotency_key":"%b"' % key.encode())).status == 201
        assert outcome(caller.send(cloudevent(reader.key, source, "id"))) == (409, first)


def test_a_cloudevent_has_its_key_in_itself(system: System, tenant: Tenant) -> None:
    sent = cloudevent(tenant.key, "s", "1").replace(b"\r\nContent-Type", b'\r\nIdempotency-Key: "k"\r\nContent-Type')
    assert_refused(system, tenant.key, sent, 400, "invalid-header")


def test_the_same_event_is_told_its_id_and_another_under_its_key_is_refused(system: System, reader: Tenant) -> None:
    key = fresh().encode()
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.post(SAME["as it was"] % key))
        with nothing_appended(system.settings):
            for name, body in SAME.items():
                answer = caller.post(body % key)
                assert_problem(answer, 409, "duplicate-event")
                assert answer.document["id"] == kept.event["id"], name
            for name, body in OTHER.items():
                answer = caller.post(body % key)
                assert_problem(answer, 422, "idempotency-key-reused")
                assert answer.document["id"] == kept.event["id"], name
        assert caller.post(EVENT_BODY).status == 201


def test_a_key_in_live_test_and_two_organizations_is_four_keys_and_over_two_routes_one(system: System, reader: Tenant) -> None:
    other = make_tenant(system.settings, "the same keys")
    owners = [reader, other, *(make_key(system.settings, one.organization, mode="test") for one in (reader, other))]
    body = native(b"1", b',"idempotency_key":"%b"' % fresh().encode())
    first = [talk(system.settings, posted(owner, body)) for owner in owners]
    assert [answer.status for answer in first] == [201] * 4
    for owner, answer in zip(owners, first, strict=True):
        assert outcome(talk(system.settings, posted(owner, body))) == (409, answer.document["id"])
        batch: list[Header] = [("X-API-Key", owner.key), ("Content-Type", "application/json")]
        (result,) = talk(system.settings, request_bytes("POST", "/events/batch", batch, b"[%b]" % body)).document["results"]
        assert (result["status"], result["problem"]["id"]) == (409, answer.document["id"])


def test_past_the_window_the_api_takes_it_again_and_the_log_has_the_last_word(system: System, reader: Tenant, tmp_path: Path) -> None:
    body = native(b"1", b',"idempotency_key":"%b"' % fresh().encode())
    with OwnApi(system, tmp_path, {"TRIGGERS_INGEST__IDEMPOTENCY_WINDOW_S": "1"}) as (_, settings), Caller(system, reader.key) as caller:
        first = talk(settings, posted(reader, body)).document
        assert first["idempotency_window_s"] == 1
        again = talk(settings, posted(reader, body))
        assert (again.status, again.document["idempotency_window_s"]) == (409, 1)
        answers: list[dict[str, Any]] = []

        def taken_again() -> bool:
            answer = talk(settings, posted(reader, body))
            answers.append(answer.document)
            return answer.status == 201

        until(taken_again, 10, "the end of the window", 0.1)
        second = answers[-1]["id"]
        assert second != first["id"]
        # dedup counts its own day, from the log's clock: the reader gets one event, and the sender can learn which.
        until(lambda: caller.status(second) == "duplicate", 30, "dedup's judgement", 0.05)
        assert caller.get(f"/events/{second}").document["original_id"] == first["id"]
