"""What a body claims to be, and what it is (RELIABILITY rows 17 to 19)."""

from __future__ import annotations

import json

import pytest

from tests.flow.hostile.judged import Caller, assert_refused
from tests.flow.raw import EVENT_BODY, Header, request_bytes
from triggers.provision import Tenant
from triggers.system import System

CLOUDEVENT = {"specversion": "1.0", "id": "{id}", "source": "shop", "type": "a.b", "data": 1}
FORM = b'--x\r\nContent-Disposition: form-data; name="type"\r\n\r\na.b\r\n--x--\r\n'
OTHERS: dict[str, tuple[str, list[str], bytes]] = {
    "none": ("/events", [], EVENT_BODY),
    "nothing": ("/events", [""], EVENT_BODY),
    "text": ("/events", ["text/plain"], EVENT_BODY),
    "a form": ("/events", ["multipart/form-data; boundary=x"], FORM),
    "a web form": ("/events", ["application/x-www-form-urlencoded"], b"type=a.b&payload=1"),
    "two at once": ("/events", ["application/json, text/plain"], EVENT_BODY),
    "two headers": ("/events", ["application/json", "application/json"], EVENT_BODY),
    "JSON by another name": ("/events", ["text/json"], EVENT_BODY),
    "JSON5": ("/events", ["application/json5"], EVENT_BODY),
    "UTF-16": ("/events", ["application/json; charset=utf-16"], EVENT_BODY.decode().encode("utf-16")),
    "UTF-16 by name only": ("/events", ['application/json;charset="UTF-16LE"'], EVENT_BODY),
    "Latin-1": ("/events", ["application/json; charset=iso-8859-1"], EVENT_BODY),
    "a CloudEvent in UTF-32": ("/events", ["application/cloudevents+json; charset=utf-32"], EVENT_BODY),
    "many CloudEvents to the path for one": ("/events", ["application/cloudevents-batch+json"], b"[]"),
    "lines to the path for one": ("/events", ["application/x-ndjson"], EVENT_BODY),
    "one CloudEvent to the path for many": ("/events/batch", ["application/cloudevents+json"], EVENT_BODY),
    "a batch of nothing known": ("/events/batch", ["text/plain"], b"[]"),
    "a batch in UTF-16": ("/events/batch", ["application/json; charset=utf-16"], "[]".encode("utf-16")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_media_type_is_415_and_names_those_there_are(name: str, system: System, tenant: Tenant) -> None:
    target, content_types, body = OTHERS[name]
    headers: list[Header] = [("X-API-Key", tenant.key), *(("Content-Type", value) for value in content_types)]
    document = assert_refused(system, tenant.key, request_bytes("POST", target, headers, body), 415, "unsupported-media-type")
    assert "application/json" in document["detail"] or "exactly one" in document["detail"]


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
@pytest.mark.parametrize("target", ["/events", "/events/batch"])
def test_a_body_in_another_charset_than_utf_8_is_400(charset: str, target: str, system: System, tenant: Tenant) -> None:
    text = '{"type":"a.b","payload":"é"}'
    body = (text if target == "/events" else f"[{text}]").encode(charset)
    headers: list[Header] = [("X-API-Key", tenant.key), ("Content-Type", "application/json")]
    assert_refused(system, tenant.key, request_bytes("POST", target, headers, body), 400, "malformed-json")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json;charset=UTF-8", 'Application/Json ; charset="utf-8"', " application/json "],
)
def test_json_in_utf_8_is_taken_however_it_is_spelt(content_type: str, system: System, reader: Tenant) -> None:
    headers: list[Header] = [("X-API-Key", reader.key), ("Content-Type", content_type)]
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.send(request_bytes("POST", "/events", headers, b'{"type":"a.b","payload":"\xc3\xa9"}')))
    assert kept.payload == b'"\xc3\xa9"'


def test_a_cloudevent_is_taken_under_its_own_name_and_as_nothing_else(system: System, reader: Tenant) -> None:
    key: Header = ("X-API-Key", reader.key)
    with Caller(system, reader.key) as caller:
        for n, content_type in enumerate(("application/cloudevents+json", "APPLICATION/CLOUDEVENTS+JSON; charset=UTF-8")):
            body = json.dumps({**CLOUDEVENT, "id": f"named-{n}"}).encode()
            kept = caller.accepted(caller.send(request_bytes("POST", "/events", [key, ("Content-Type", content_type)], body)))
            assert (kept.payload, json.loads(kept.fields["cloudevent"])["id"]) == (b"1", f"named-{n}")
    named: Header = ("Content-Type", "application/cloudevents+json")
    as_native = request_bytes("POST", "/events", [key, named], EVENT_BODY)
    assert_refused(system, reader.key, as_native, 422, "invalid-event", field="specversion")
    as_event = request_bytes("POST", "/events", [key, ("Content-Type", "application/json")], json.dumps(CLOUDEVENT).encode())
    assert_refused(system, reader.key, as_event, 422, "invalid-event")
