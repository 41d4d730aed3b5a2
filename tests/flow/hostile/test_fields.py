"""Members of an event that are not the sender's to set, or not what they must be (RELIABILITY rows 36 to 38)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flow.hostile.judged import Caller, assert_refused, native, posted
from tests.flow.raw import Header, request_bytes
from triggers.provision import Tenant, make_key, make_tenant
from triggers.system import System

OTHER_ORGANIZATION = "org_00000000-0000-7000-8000-000000000000"
FORGED_ID = "evt_00000000-0000-7000-8000-000000000000"
#: What the system sets itself, under every name it has for it, and names that merely look as if they could do something.
SERVER_OWNED: dict[str, Any] = {
    "id": FORGED_ID, "event_id": FORGED_ID, "organization": OTHER_ORGANIZATION, "org_id": OTHER_ORGANIZATION,
    "organization_id": OTHER_ORGANIZATION,
    "mode": "test", "seq": 1, "position": {"generation": 1, "partition": 0, "offset": 0}, "offset": 0, "partition": 0,
    "received_at": "2001-01-01T00:00:00Z", "received_at_ms": 1, "fingerprint": "0" * 64, "dedup_key": "k:other", "status": "delivered",
    "ack": {"acked_at": "2001-01-01T00:00:00Z"}, "v": 2, "encoding": "plain", "base64": True, "content_type": "text/html",
    "cloudevent": {"id": "x"}, "scopes": ["events:write"], "__proto__": {"mode": "test"}, "data": 1, "Type": "c.d", "payload ": 1, "": 1,
}  # fmt: skip
BAD_TYPES: dict[str, Any] = {
    "empty": "", "257 characters": "a" * 257, "100,000 characters": "a" * 100_000, "a space": "a b", "a leading space": " a",
    "a line feed": "a\nb", "a line feed at the end": "a\n", "a star": "*", "a star at the end": "order.*", "a hash": "order.#",
    "a dot": ".",
    "a dot before": ".a", "a dot behind": "a.", "two dots": "a..b", "a slash": "a/b", "a colon": "a:b", "a way out": "../a",
    "a letter with an accent": "é",
    "a Cyrillic a": "а", "full-width": "ａ", "no width": "a\u200b", "a tab": "\t", "the system's own": "triggers.endpoint.failing",
    "a template": "{{7*7}}", "a number": 1, "nothing": None, "a list": ["a"], "an object": {"a": 1}, "a boolean": True,
}  # fmt: skip
BAD_TIMES: dict[str, Any] = {
    "a day there is not": "2026-02-30T00:00:00Z", "a leap day in another year": "2026-02-29T00:00:00Z",
    "a leap second": "2016-12-31T23:59:60Z",
    "a zone there is not": "2026-11-24T02:31:23+99:00", "a zone of 24 hours": "2026-11-24T02:31:23+24:00",
    "no zone": "2026-11-24T02:31:23",
    "year -1": "-0001-01-01T00:00:00Z", "year 0": "0000-01-01T00:00:00Z", "year 10000": "10000-01-01T00:00:00Z",
    "+year": "+2026-01-01T00:00:00Z",
    "24 o'clock": "2026-11-24T24:00:00Z", "minute 60": "2026-11-24T02:60:00Z", "month 13": "2026-13-01T00:00:00Z",
    "month 0": "2026-00-01T00:00:00Z",
    "now": "now", "infinity": "infinity", "-infinity": "-infinity", "epoch": "epoch", "today": "today", "a date": "2026-11-24",
    "a time": "02:31:23Z", "a space between": "2026-11-24 02:31:23Z", "a space before": " 2026-11-24T02:31:23Z",
    "a line feed behind": "2026-11-24T02:31:23Z\n",
    "a named zone": "2026-11-24T02:31:23 Europe/Berlin", "a zone without a colon": "2026-11-24T02:31:23+0100",
    "ten digits of a second": "2026-11-24T02:31:23.0123456789Z",
    "a dot and no digits": "2026-11-24T02:31:23.Z", "a week": "2026-W48-2T00:00:00Z", "of the mail": "Tue, 24 Nov 2026 02:31:23 GMT",
    "other digits": "２０２６-11-24T02:31:23Z", "empty": "", "seconds as text": "1732415483", "a number": 1732415483, "a fraction": 1.5,
    "true": True, "a list": ["2026-11-24T02:31:23Z"],
}  # fmt: skip


def cloudevent(key: str, event: dict[str, Any]) -> bytes:
    headers: list[Header] = [("X-API-Key", key), ("Content-Type", "application/cloudevents+json")]
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "a.b", **event}).encode()
    return request_bytes("POST", "/events", headers, body)


@pytest.mark.parametrize("name", SERVER_OWNED)
def test_a_member_that_is_not_the_senders_is_refused_by_name(name: str, system: System, tenant: Tenant) -> None:
    body = json.dumps({"type": "a.b", "payload": 1, name: SERVER_OWNED[name]}).encode()
    assert f"`{name}`" in assert_refused(system, tenant.key, posted(tenant, body), 422, "invalid-event")["detail"]


def test_what_a_cloudevent_says_beside_its_data_is_kept_and_never_believed(system: System) -> None:
    live = make_tenant(system.settings, "extensions")
    test = make_key(system.settings, live.organization, mode="test")
    claims = {
        "organization": OTHER_ORGANIZATION, "orgid": OTHER_ORGANIZATION, "mode": "test", "seq": 1, "receivedat": "2001-01-01T00:00:00Z",
        "status": "delivered", "dedupkey": "k:other", "eventid": FORGED_ID,
    }  # fmt: skip
    binary: list[Header] = [
        ("X-API-Key", live.key), ("Content-Type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", "2"), ("ce-source", "s"),
        ("ce-type", "a.b"), *((f"ce-{name}", str(value)) for name, value in claims.items()),
    ]  # fmt: skip
    with Caller(system, live.key) as caller, Caller(system, test.key) as other:
        structured = cloudevent(live.key, {**claims, "id": FORGED_ID, "data": 1})
        for sent in (structured, request_bytes("POST", "/events", binary, b"1")):
            kept = caller.accepted(caller.send(sent))
            assert kept.event["id"] != FORGED_ID
            assert json.loads(kept.fields["status"]) == "none"
            assert not json.loads(kept.fields["received_at"]).startswith("2001")
            assert json.loads(kept.fields["cloudevent"])["mode"] == "test"
        assert other.inbox() == {}


@pytest.mark.parametrize("name", ["org_id", "receivedAt", "__proto__", "a.b", "a" * 65, ""])
def test_an_attribute_that_has_no_name_of_cloudevents_is_refused(name: str, system: System, tenant: Tenant) -> None:
    assert_refused(system, tenant.key, cloudevent(tenant.key, {name: "x", "data": 1}), 422, "invalid-event", field=repr(name[:64]))


@pytest.mark.parametrize("name", BAD_TYPES)
def test_a_type_that_is_none_is_refused(name: str, system: System, tenant: Tenant) -> None:
    event_type = BAD_TYPES[name]
    sent = posted(tenant, native(b"1", event_type=json.dumps(event_type).encode()))
    document = assert_refused(system, tenant.key, sent, 422, "invalid-event")
    assert "type" in document["detail"]
    assert_refused(system, tenant.key, cloudevent(tenant.key, {"type": event_type, "data": 1}), 422, "invalid-event", field="type")


@pytest.mark.parametrize("event_type", ["a", "A.B", "a" * 255, "a" * 256, "0", "_", "-", "__a", "triggers", "com.example.Order_Paid-v2"])
def test_a_type_of_the_pattern_is_taken_as_it_is(event_type: str, system: System, reader: Tenant) -> None:
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.post(native(b"1", event_type=json.dumps(event_type).encode())))
    assert (kept.event["type"], json.loads(kept.fields["type"])) == (event_type, event_type)


@pytest.mark.parametrize("name", BAD_TIMES)
def test_a_time_that_is_not_of_rfc_3339_is_refused(name: str, system: System, tenant: Tenant) -> None:
    text = json.dumps(BAD_TIMES[name]).encode()
    document = assert_refused(system, tenant.key, posted(tenant, native(b"1", b',"occurred_at":%b' % text)), 422, "invalid-event")
    assert "occurred_at" in document["detail"]
    assert_refused(system, tenant.key, cloudevent(tenant.key, {"time": BAD_TIMES[name], "data": 1}), 422, "invalid-event", field="time")


@pytest.mark.parametrize(
    ("field", "value"),
    [("subject", ""), ("subject", "s" * 257), ("subject", 1), ("idempotency_key", ""), ("idempotency_key", "k" * 256),
     ("idempotency_key", ["k"]), ("idempotency_key", {"k": 1})],
)  # fmt: skip
def test_a_subject_or_key_that_is_none_is_refused(field: str, value: Any, system: System, tenant: Tenant) -> None:
    body = json.dumps({"type": "a.b", "payload": 1, field: value}).encode()
    assert field in assert_refused(system, tenant.key, posted(tenant, body), 422, "invalid-event")["detail"]
