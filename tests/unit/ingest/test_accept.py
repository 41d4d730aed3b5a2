from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.accept import Draft
from ingest.formats import coding_of, idempotency_key_of, one, shape_of
from schemas.problems import ProblemError
from schemas.strict import NESTING_MAX

JSON_HEADERS = [(b"content-type", b"application/json")]


def taken(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Draft:
    found = headers or JSON_HEADERS
    return one(body, found, shape_of(found), payload_bytes_max=262_144)


def refused(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        taken(body, headers)
    assert caught.value.detail, "a problem says what to do"
    return caught.value


@pytest.mark.parametrize(
    "payload", [b'{ "x" : 1.0 }', b"null", b"0", b'"\\u00e9"', b"[1 ,2]", b"9007199254740993", b"1e308", '"Zażółć 🚀"'.encode(), b"{}"]
)
def test_the_payload_is_the_exact_slice(payload: bytes) -> None:
    assert taken(b'{"type":"a.b",\n "payload":  ' + payload + b'  , "subject":"s"}').payload == payload


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255))
def test_any_printable_key_is_taken_as_it_is(key: str) -> None:
    draft = taken(json.dumps({"type": "t", "payload": 1, "idempotency_key": key}).encode())
    assert draft.dedup_key == "k:" + key


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"", "malformed-json"),
        (b"{", "malformed-json"),
        (b'{"type":"a","payload":1} x', "malformed-json"),
        (b'{"type":"a","payload":1}{}', "malformed-json"),
        (b"\xef\xbb\xbf{}", "malformed-json"),
        ('{"type":"a","payload":1}'.encode("utf-16"), "malformed-json"),
        (b'{"type":"a","payload":"\xff"}', "malformed-json"),
        (b'{"type":"a","payload":"\xed\xa0\x80"}', "invalid-event"),
        (b'{"type":"a","payload":"\xc0\xaf"}', "malformed-json"),
        (b'{"type":"a","payload":NaN}', "malformed-json"),
        (b'{"type":"a","payload":Infinity}', "malformed-json"),
        (b'{"type":"a","payload":01}', "malformed-json"),
        (b"{'type':'a','payload':1}", "malformed-json"),
        (b'{"type":"a","payload":"\x01"}', "malformed-json"),
        (b'{"type":"a","payload":"\\ud800"}', "invalid-event"),
        (b"[" * 100_000, "invalid-event"),
        (b'{"type":"a","payload":' + b"[" * 100_000, "invalid-event"),
        (b'{"type":"a","type":"b","payload":1}', "invalid-event"),
        (b'{"type":"a","payload":{"a":1,"\\u0061":2}}', "invalid-event"),
        (b"null", "invalid-event"),
        (b"[]", "invalid-event"),
        (b'"x"', "invalid-event"),
        (b"{}", "invalid-event"),
        (b'{"type":"a"}', "invalid-event"),
        (b'{"payload":1}', "invalid-event"),
        (b'{"type":1,"payload":1}', "invalid-event"),
        (b'{"type":"triggers.endpoint.failing","payload":1}', "invalid-event"),
        (b'{"type":"a","payload":1,"id":"evt_x"}', "invalid-event"),
        (b'{"type":"a","payload":1,"organization":"org_x"}', "invalid-event"),
        (b'{"type":"a","payload":1,"mode":"live"}', "invalid-event"),
        (b'{"type":"","payload":1}', "invalid-event"),
        (b'{"type":"a b","payload":1}', "invalid-event"),
        (b'{"type":"a..b","payload":1}', "invalid-event"),
        (b'{"type":"a\\n","payload":1}', "invalid-event"),
        (b'{"type":"a*","payload":1}', "invalid-event"),
        (b'{"type":"triggers.ours","payload":1}', "invalid-event"),
        (b'{"type":"' + b"a" * 257 + b'","payload":1}', "invalid-event"),
        (b'{"type":"a","payload":1,"subject":""}', "invalid-event"),
        (b'{"type":"a","payload":1,"subject":"a\\u0000"}', "invalid-event"),
        (b'{"type":"a","payload":1,"subject":"' + b"s" * 257 + b'"}', "invalid-event"),
        (b'{"type":"a","payload":1,"idempotency_key":""}', "invalid-event"),
        (b'{"type":"a","payload":1,"idempotency_key":"a\\nb"}', "invalid-event"),
        (b'{"type":"a","payload":1,"idempotency_key":"' + b"k" * 256 + b'"}', "invalid-event"),
    ],
)
def test_what_is_no_event_is_refused_with_what_to_do(body: bytes, slug: str) -> None:
    assert refused(body).problem.slug == slug


@pytest.mark.parametrize("event_type", ["_", "-", "__a", "triggers", "triggersx.a", "a.triggers.b", "Triggers.a", "a" * 256])
def test_only_what_begins_with_the_systems_own_name_is_kept_for_it(event_type: str) -> None:
    assert taken(b'{"type":"%b","payload":1}' % event_type.encode()).type == event_type


def test_a_refusal_does_not_repeat_what_is_long() -> None:
    assert len(refused(b'{"type":"a","payload":1,"%b":1}' % (b"x" * 200_000)).detail) < 500


@pytest.mark.parametrize(
    "text", ["2026-11-24T02:31:23Z", "2026-11-24t02:31:23.123456789z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-00:00"]
)
def test_rfc_3339_times_are_kept_as_sent(text: str) -> None:
    assert taken(b'{"type":"a","payload":1,"occurred_at":"%b"}' % text.encode()).occurred_at == text


@pytest.mark.parametrize(
    "text",
    ["", "now", "infinity", "2026-02-30T00:00:00Z", "2026-11-24T23:59:60Z", "2026-11-24T24:00:00Z", "2026-11-24", "2026-11-24T02:31:23",
     "2026-11-24T02:31:23+24:00", "2026-11-24 02:31:23Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
     "2026-11-24T02:31:23Z\n", "٢٠٢٦-11-24T02:31:23Z"],
)  # fmt: skip
def test_other_times_are_refused(text: str) -> None:
    assert refused(json.dumps({"type": "a", "payload": 1, "occurred_at": text}).encode()).members["field"] == "occurred_at"


def test_payload_limit_is_exact_in_bytes() -> None:
    for character in (b"a", "ż".encode(), "€".encode(), "🚀".encode()):
        filler = character * ((262_144 - 2) // len(character))
        fits = b'"' + filler + b"a" * (262_142 - len(filler)) + b'"'
        assert len(taken(b'{"type":"a","payload":' + fits + b"}").payload) == 262_144
        assert refused(b'{"type":"a","payload":' + fits[:-1] + b'a"}').problem.slug == "payload-too-large"


@pytest.mark.parametrize(
    "value", [b"application/json", b"APPLICATION/JSON", b"application/json;charset=UTF-8", b'application/json; charset="utf-8"']
)
def test_json_in_utf_8_is_taken(value: bytes) -> None:
    assert shape_of([(b"content-type", value)]).format == "native"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [(b"content-type", b"application/cloudevents+json; charset=utf-16")],
        [(b"content-type", b"application/cloudevents-batch+json")],
        [(b"content-type", b"application/json"), (b"content-type", b"application/json")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"br")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip, gzip")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")],
        [(b"content-type", b"application/json; charset=utf-16"), (b"ce-specversion", b"1.0")],
    ],
)
def test_other_media_types_and_encodings_are_refused_before_the_body(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ProblemError) as caught:
        shape_of(headers)
    assert caught.value.problem.status == 415


@pytest.mark.parametrize(("value", "coding"), [(b"identity", "identity"), (b"GZIP", "gzip"), (b"x-gzip", "gzip"), (b" zstd", "zstd")])
def test_one_content_encoding_is_taken(value: bytes, coding: str) -> None:
    assert coding_of([(b"content-encoding", value)]) == coding


@pytest.mark.parametrize(
    ("value", "key"),
    [(b'"order-17"', "order-17"), (b"order-17", "order-17"), (b'"a \\"quoted\\" key"', 'a "quoted" key'), (b'"a:b|c"', "a:b|c")],
)
def test_the_idempotency_key_header_is_a_structured_field_string_or_a_bare_token(value: bytes, key: str) -> None:
    assert idempotency_key_of([(b"idempotency-key", value)]) == key


@pytest.mark.parametrize("value", [b'""', b'"' + b"k" * 256 + b'"', b"\xff", b'"open', b"two words", '"ż"'.encode(), b""])
def test_other_idempotency_key_headers_are_refused(value: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        idempotency_key_of([(b"idempotency-key", value)])
    assert caught.value.problem.slug == "invalid-header"


def test_header_and_body_key_must_agree() -> None:
    body = b'{"type":"a","payload":1,"idempotency_key":"one"}'
    assert taken(body, [*JSON_HEADERS, (b"idempotency-key", b'"one"')]).dedup_key == "k:one"
    assert refused(body, [*JSON_HEADERS, (b"idempotency-key", b'"two"')]).members["field"] == "idempotency_key"
    assert refused(body, [*JSON_HEADERS, (b"idempotency-key", b'"a"'), (b"idempotency-key", b'"a"')]).problem.slug == "invalid-header"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":', b"}]")])
def test_nesting_is_limited_where_every_reader_can_still_follow(opening: bytes, closing: bytes) -> None:
    levels = NESTING_MAX // (1 + opening.count(b"[{"))
    fits = opening * levels + b"1" + closing * levels
    assert taken(b'{"type":"a","payload":' + fits + b"}").payload == fits
    assert refused(b'{"type":"a","payload":[' + fits + b"]}").members["reason"] == "too_deep"


def test_brackets_in_strings_are_no_nesting() -> None:
    text = json.dumps(["[{" * 1_000, '\\"[{' * 1_000, "\\" * 999, '"', "]}"]).encode()
    assert taken(b'{"type":"a","payload":' + text + b"}").payload == text
    hidden = b"[" * (NESTING_MAX + 1) + b'"]]]\\"]]]"' + b"]" * (NESTING_MAX + 1)
    assert refused(b'{"type":"a","payload":' + hidden + b"}").members["reason"] == "too_deep"


def test_many_small_values_beside_each_other_are_no_nesting() -> None:
    wide = b"[" + b"[],{}," * 20_000 + b"[[]]]"
    assert taken(b'{"type":"a","payload":' + wide + b"}").payload == wide
