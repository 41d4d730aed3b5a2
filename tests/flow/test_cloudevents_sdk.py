"""CloudEvents from the official SDK, in each of its modes, and compressed bodies: what arrives in the inbox is what was sent."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from ingest.bodies import zstd
from triggers.provision import Tenant, make_tenant
from triggers.system import System, until

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
IMAGE = b"\x89PNG\r\n\x1a\n\x00\xff"


class Item(msgspec.Struct):
    """What the inbox says of an event, its data as the bytes they are."""

    id: str
    type: str
    content_type: str
    subject: str | None = None
    occurred_at: str | None = None
    cloudevent: msgspec.Raw = msgspec.Raw(b"null")
    payload: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


class Page(msgspec.Struct):
    events: list[Item]


@pytest.fixture(scope="module")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "cloudevents")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


@pytest.fixture
def arrived(client: httpx.Client) -> Callable[[str], Item]:
    """The inbox's item of an event, once it is there."""

    def wait(event_id: str) -> Item:
        found: list[Item] = []

        def look() -> bool:
            page = msgspec.json.decode(client.get("/inbox", params={"status": "all", "limit": 1000}).content, type=Page)
            found[:] = [item for item in page.events if item.id == event_id]
            return bool(found)

        until(look, 30, f"{event_id} reaching the inbox", 0.1)
        return found[0]

    return wait


def made(**attributes: Any) -> dict[str, Any]:
    """Every kind of attribute, with what HTTP headers cannot carry as it is."""
    return {
        "type": "com.example.order.paid",
        "source": "https://example.com/shops/köln?a=b%20c&q=\"1\"",
        "subject": "order 17 – \"paid\" 100%",
        "time": datetime(2026, 11, 24, 2, 31, 23, 155_000, tzinfo=timezone(timedelta(hours=1))),
        "dataschema": "https://example.com/schemas/order.json",
        "comexampleextension": "😀 value, with; \\separators",
        **attributes,
    }  # fmt: skip


EVENTS: dict[str, Callable[[], CloudEvent]] = {
    "json": lambda: CloudEvent(made(datacontenttype="application/json"), {"order": 17, "name": "Zoë", "price": 1.10}),
    "json by suffix": lambda: CloudEvent(made(datacontenttype="application/vnd.order+json; charset=utf-8"), {"order": [1, {"a": None}]}),
    "json by default": lambda: CloudEvent(made(time=datetime(2026, 11, 24, tzinfo=UTC)), {"order": 17}),
    "text": lambda: CloudEvent(made(datacontenttype="text/plain; charset=utf-8"), "Zoë\n\tpaid"),
    "bytes": lambda: CloudEvent(made(datacontenttype="image/png"), IMAGE),
    "no data": lambda: CloudEvent({"type": "nothing.to.say", "source": "/s"}),
}


def sent_in_structured_mode(client: httpx.Client, event: CloudEvent) -> httpx.Response:
    message = to_structured_event(event)
    return client.post("/events", headers=message.headers, content=message.body)


def sent_in_binary_mode(client: httpx.Client, event: CloudEvent) -> httpx.Response:
    message = to_binary_event(event)
    return client.post("/events", headers=message.headers, content=message.body)


def assert_same(event: CloudEvent, item: Item) -> None:
    """Held against the SDK's own reading of what the inbox gives, and against the bytes of the data the SDK wrote."""
    attributes = json.loads(bytes(item.cloudevent))
    data = {"data": json.loads(bytes(item.payload))} if bytes(item.payload) else {}
    if item.data_base64 is not None:
        data = {"data_base64": item.data_base64}
    again = from_structured_event(HTTPMessage({}, json.dumps({**attributes, **data}).encode()))
    content_type = event.get_datacontenttype()
    assert {**again.get_attributes(), "datacontenttype": content_type} == {**event.get_attributes(), "datacontenttype": content_type}
    assert again.get_datacontenttype() == content_type
    assert (item.type, item.subject) == (event.get_type(), event.get_subject())
    assert item.content_type == (content_type or "application/json")
    if (time := event.get_time()) is not None:
        assert datetime.fromisoformat(item.occurred_at or "") == time
    written = JSONFormat().write_data(event.get_data(), content_type)
    kept = base64.b64decode(item.data_base64) if item.data_base64 is not None else bytes(item.payload)
    assert kept == (written or b"null")


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("send", [sent_in_structured_mode, sent_in_binary_mode])
def test_an_event_of_the_official_sdk_arrives_with_its_attributes_and_its_bytes(
    kind: str, send: Callable[[httpx.Client, CloudEvent], httpx.Response], client: httpx.Client, arrived: Callable[[str], Item]
) -> None:
    event = EVENTS[kind]()
    answer = send(client, event)
    assert answer.status_code == 201, answer.text
    assert answer.json()["idempotency_window_s"] == 86_400
    assert_same(event, arrived(answer.json()["id"]))


def test_a_batch_of_the_official_sdk_arrives_whole_and_in_order(client: httpx.Client, arrived: Callable[[str], Item]) -> None:
    events = [make() for make in EVENTS.values()]
    body = b"[" + b",".join(JSONFormat().write(event) for event in events) + b"]"
    results = client.post("/events/batch", headers=BATCH, content=body).json()["results"]
    assert [result["status"] for result in results] == [201] * len(events)
    named = [result["event"]["id"] for result in results]
    for event, event_id in zip(events, named, strict=True):
        assert_same(event, arrived(event_id))
    page = msgspec.json.decode(client.get("/inbox", params={"status": "all", "limit": 1000}).content, type=Page)
    assert [item.id for item in page.events if item.id in set(named)] == named


def test_one_event_is_one_event_in_whatever_mode_it_comes(client: httpx.Client) -> None:
    """Source and id identify it; the data are the same bytes in every mode."""
    event = EVENTS["json"]()
    first = sent_in_structured_mode(client, event)
    again = sent_in_binary_mode(client, event)
    batch = client.post("/events/batch", headers=BATCH, content=b"[" + JSONFormat().write(event) + b"]").json()["results"][0]
    assert first.status_code == 201
    for status, problem in ((again.status_code, again.json()), (batch["status"], batch["problem"])):
        assert (status, problem["id"], problem["idempotency_window_s"]) == (409, first.json()["id"], 86_400)


CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_arrives_as_what_it_was_before(coding: str, client: httpx.Client, arrived: Callable[[str], Item]) -> None:
    payload = b'{ "n" : 1.10, "text" : "' + b"Zo\xc3\xab " * 10_000 + b'" }'
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    answer = client.post("/events", headers=headers, content=CODINGS[coding](b'{"type":"a.b","payload": ' + payload + b"}"))
    assert answer.status_code == 201, answer.text
    assert bytes(arrived(answer.json()["id"]).payload) == payload


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_batch_and_a_compressed_cloudevent_arrive_too(
    coding: str, client: httpx.Client, arrived: Callable[[str], Item]
) -> None:
    lines = b"".join(b'{"type":"a.b","payload":{"n" :%d}}\n' % n for n in range(50))
    headers = {"Content-Encoding": coding, "Content-Type": "application/x-ndjson"}
    results = client.post("/events/batch", headers=headers, content=CODINGS[coding](lines)).json()["results"]
    assert [result["status"] for result in results] == [201] * 50
    for n in (0, 49):
        assert bytes(arrived(results[n]["event"]["id"]).payload) == b'{"n" :%d}' % n
    for name in ("json", "bytes"):
        event = EVENTS[name]()
        message = to_binary_event(event)
        answer = client.post("/events", headers={**message.headers, "Content-Encoding": coding}, content=CODINGS[coding](message.body))
        assert answer.status_code == 201, answer.text
        assert_same(event, arrived(answer.json()["id"]))
