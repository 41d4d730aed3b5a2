from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.accept import Draft
from ingest.formats import one, shape_of
from schemas.problems import ProblemError

STRUCTURED = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]
EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.paid"}


def structured(event: dict[str, Any] | bytes) -> Draft:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return one(body, STRUCTURED, shape_of(STRUCTURED), payload_bytes_max=100)


def binary(body: bytes, *more: tuple[bytes, bytes], content_type: bytes | None = b"application/json") -> Draft:
    headers = [(b"ce-" + name.encode(), str(value).encode()) for name, value in EVENT.items()]
    headers = [header for header in headers if header[0] not in dict(more)] + list(more)
    if content_type is not None:
        headers.append((b"content-type", content_type))
    return one(body, headers, shape_of(headers), payload_bytes_max=100)


def reason(call: Any, *arguments: Any, **named: Any) -> str:
    """The field or slug a problem is about."""
    with pytest.raises(ProblemError) as caught:
        call(*arguments, **named)
    assert caught.value.detail
    return str(caught.value.members.get("field", caught.value.problem.slug))


def test_a_structured_event_keeps_its_data_slice_and_attributes() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"/shop","type":"com.example.paid","data": {"n" : 1.0} ,"subject":"s",'
    body += b'"time":"2026-11-24T02:31:23Z","mine":true,"count":7,"nothing":null,"datacontenttype":"application/vnd.x+json"}'
    draft = structured(body)
    assert draft.payload == b'{"n" : 1.0}'
    assert (draft.type, draft.subject, draft.occurred_at) == ("com.example.paid", "s", "2026-11-24T02:31:23Z")
    assert (draft.content_type, draft.base64) == ("application/vnd.x+json", False)
    assert draft.dedup_key == "c:5:/shop1"
    assert draft.cloudevent == {
        **EVENT, "subject": "s", "time": "2026-11-24T02:31:23Z", "mine": True, "count": 7, "datacontenttype": "application/vnd.x+json",
    }  # fmt: skip


def test_a_binary_event_has_its_attributes_in_headers_and_the_body_as_data() -> None:
    draft = binary(b' {"n" : 1.0}\n', (b"ce-subject", b'"with \\"quotes\\" and %C5%BC"'), (b"ce-mine", b"true"))
    assert draft.payload == b'{"n" : 1.0}'
    assert draft.subject == 'with "quotes" and ż'
    assert draft.cloudevent == {**EVENT, "subject": draft.subject, "mine": "true", "datacontenttype": "application/json"}


@given(st.binary(max_size=100))
def test_data_that_is_no_json_is_the_same_event_in_both_modes(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    first = structured({**EVENT, "datacontenttype": "application/octet-stream", "data_base64": encoded})
    assert first.base64
    assert json.loads(first.payload) == encoded
    if data:
        second = binary(data, content_type=b"application/octet-stream")
        assert second._replace(cloudevent=None) == first._replace(cloudevent=None)


def test_text_is_the_same_event_in_both_modes_and_another_than_its_base64_as_json() -> None:
    first = structured({**EVENT, "datacontenttype": "text/plain", "data": "żółw"})
    second = binary("żółw".encode(), content_type=b"text/plain")
    assert (first.payload, first.fingerprint) == (second.payload, second.fingerprint)
    as_json = structured({**EVENT, "data": json.loads(first.payload)})
    assert as_json.payload == first.payload
    assert as_json.fingerprint != first.fingerprint


@pytest.mark.parametrize("event", [EVENT, {**EVENT, "data": None}])
def test_an_event_without_data_carries_null(event: dict[str, Any]) -> None:
    assert structured(event).payload == b"null"
    assert binary(b"", content_type=None).payload == b"null"


def test_source_and_id_cannot_run_together() -> None:
    keys = {
        structured({**EVENT, "source": source, "id": one_id}).dedup_key for source, one_id in (("a", "b:c"), ("a:b", "c"), ("ab", ":c"))
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"source": None}, "source"),
        ({"source": "a\nb"}, "source"),
        ({"type": "not a type"}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": 7}, "time"),
        ({"subject": ""}, "subject"),
        ({"subject": True}, "subject"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"datacontenttype": "a/b\r\nx: y"}, "datacontenttype"),
        ({"Mine": 1}, "'Mine'"),
        ({"my-own": 1}, "'my-own'"),
        ({"mine": 1.5}, "mine"),
        ({"mine": 2**31}, "mine"),
        ({"mine": {"a": 1}}, "mine"),
        ({"data": 1, "data_base64": "MQ=="}, "data_base64"),
        ({"data_base64": "MQ"}, "data_base64"),
        ({"data_base64": "M-=="}, "data_base64"),
        ({"data_base64": 7}, "data_base64"),
        ({"datacontenttype": "text/plain", "data": {"a": 1}}, "data"),
        ({"data": "x" * 99}, "payload-too-large"),
        ({"data_base64": base64.b64encode(bytes(101)).decode()}, "payload-too-large"),
        ({f"a{n}": 1 for n in range(64)}, "invalid-event"),
        ({"a": "x" * 16_384}, "invalid-event"),
    ],
)
def test_what_is_no_cloudevent_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    assert reason(structured, {**EVENT, **change}) == field


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b'{"specversion":"1.0","id":"1","id":"2","source":"a","type":"t"}'])
def test_what_is_no_object_or_ambiguous_is_refused(body: bytes) -> None:
    assert reason(structured, body) == "invalid-event"


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ((b"ce-id", b"%FF"), "invalid-header"),
        ((b"ce-id", b"\xff"), "invalid-header"),
        ((b"ce-id", b"a%0Ab"), "id"),
        ((b"ce-specversion", b"2.0"), "specversion"),
        ((b"ce-datacontenttype", b"text/plain"), "datacontenttype"),
        ((b"ce-my-own", b"x"), "'my-own'"),
        ((b"idempotency-key", b'"k"'), "invalid-header"),
    ],
)
def test_what_is_no_binary_cloudevent_is_refused_by_name(header: tuple[bytes, bytes], field: str) -> None:
    assert reason(binary, b"1", header) == field


def test_a_ce_header_twice_and_a_missing_specversion_are_refused() -> None:
    assert reason(binary, b"1", (b"ce-mine", b"1"), (b"ce-mine", b"2")) == "invalid-header"
    headers = [(b"content-type", b"application/json"), (b"ce-id", b"1")]
    assert reason(lambda: one(b"1", headers, shape_of(headers), payload_bytes_max=9)) == "specversion"


def test_json_data_of_a_binary_event_is_read_as_strictly_as_any() -> None:
    assert reason(binary, b'{"a":1,"a":2}') == "invalid-event"
    assert reason(binary, b"{", content_type=b"application/vnd.x+json") == "malformed-json"
