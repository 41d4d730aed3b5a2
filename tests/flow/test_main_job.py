"""The main job on real input: every payload posted, in the inbox once and byte for byte, and received as a signed webhook.

The 329 GitHub payloads lie beside the project where it is developed; elsewhere the small samples of the project go the same way.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from schemas import ids
from triggers.provision import make_endpoint, make_key, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

ROOT = Path(__file__).parents[2]
GITHUB = ROOT.parent / "shared" / "data" / "github_webhooks.ndjson"
SAMPLES = ROOT / "tests" / "samples" / "webhooks.ndjson"
#: How many there are, so that a cut file is no smaller job.
COUNTS = {GITHUB: 329, SAMPLES: 4}
PAGE = 50


class Item(msgspec.Struct):
    id: str
    type: str
    status: str
    ack: dict[str, str] | None
    payload: msgspec.Raw


class Page(msgspec.Struct):
    events: list[Item]
    next_cursor: str
    has_more: bool


def payloads(path: Path) -> list[tuple[str, bytes]]:
    """(type, exact bytes) of each line."""

    class Line(msgspec.Struct):
        type: str
        payload: msgspec.Raw

    lines = [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
    return [(re.sub(r"[^A-Za-z0-9_.-]", "_", line.type), bytes(line.payload)) for line in lines]


def walk(client: httpx.Client, status: str, cursor: str | None = None) -> list[Item]:
    items: list[Item] = []
    while True:
        answer = client.get("/inbox", params={"status": status, "limit": PAGE, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        page = msgspec.json.decode(answer.content, type=Page)
        assert len(page.events) <= PAGE
        items += page.events
        cursor = page.next_cursor
        if not page.has_more:
            return items


@pytest.mark.parametrize("path", [SAMPLES, GITHUB], ids=["samples", "github"])
def test_every_payload_is_in_the_inbox_once_byte_for_byte_and_arrives_as_a_signed_webhook(
    path: Path, system: System, receiver: Receiver
) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not there: it lies beside the project only where it is developed")
    events = payloads(path)
    assert len(events) == COUNTS[path]
    tenant = make_tenant(system.settings, f"main job {path.name}")
    _, receiver.secrets["/webhooks"] = make_endpoint(system.settings, tenant.organization, receiver.url())
    headers = {"X-API-Key": tenant.key, "Content-Type": "application/json"}
    with httpx.Client(base_url=system.url, headers=headers, timeout=30) as client:
        posted = _post_all(client, events, expect=201)
        assert _post_all(client, events, expect=409) == posted

        until(lambda: len(walk(client, "all")) >= len(events), 60, "every event reaching the inbox", 0.2)
        items = walk(client, "unacked")
        assert [item.id for item in items] == posted
        assert [(item.type, bytes(item.payload)) for item in items] == events

        for start in range(0, len(posted), 100):
            acked = client.post("/inbox/ack", json={"ids": posted[start : start + 100]}).json()
            assert (acked["acknowledged"], acked["failed"]) == (len(posted[start : start + 100]), 0)
        assert walk(client, "unacked") == []
        assert [item.id for item in walk(client, "acked")] == posted
        assert {item.status for item in walk(client, "all")} == {"acknowledged"}

        until(lambda: len({one.headers["webhook-id"] for one in receiver.of()}) >= len(events), 60, "every webhook arriving")
    received = {one.headers["webhook-id"]: one for one in receiver.of()}
    assert all(one.verified for one in receiver.of())
    assert set(received) == set(posted)
    for event_id, (kind, payload) in zip(posted, events, strict=True):
        body = msgspec.json.decode(received[event_id].body, type=dict[str, msgspec.Raw])
        assert bytes(body["data"]) == payload
        assert msgspec.json.decode(body["type"]) == kind


def _post_all(client: httpx.Client, events: list[tuple[str, bytes]], *, expect: int) -> list[str]:
    posted = []
    for number, (kind, payload) in enumerate(events):
        content = b'{"type":%b,"idempotency_key":"job-%d","payload":%b}' % (json.dumps(kind).encode(), number, payload)
        answer = client.post("/events", content=content)
        assert answer.status_code == expect, answer.text
        posted.append(answer.json()["id"])
    return posted


def test_going_on_from_a_cursor_skips_nothing_but_what_is_acknowledged_late_which_the_view_has_where_it_was_posted(system: System) -> None:
    tenant = make_tenant(system.settings, "views")
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=10) as client:

        def post(number: int) -> str:
            return str(client.post("/events", json={"type": "a.b", "payload": number}).json()["id"])

        def cursor_of(status: str) -> str:
            return str(client.get("/inbox", params={"status": status}).json()["next_cursor"])

        def ids_of(status: str, cursor: str | None = None) -> list[str]:
            return [item.id for item in walk(client, status, cursor)]

        posted = [post(number) for number in range(4)]
        until(lambda: ids_of("all") == posted, 30, "the events", 0.1)
        client.post("/inbox/ack", json={"ids": [posted[2]]})
        cursors = {status: cursor_of(status) for status in ("all", "unacked", "acked")}
        client.post("/inbox/ack", json={"ids": [posted[0], posted[3]]})
        posted += [post(number) for number in range(4, 6)]
        until(lambda: ids_of("all") == posted, 30, "the other events", 0.1)
        assert ids_of("all", cursors["all"]) == ids_of("unacked", cursors["unacked"]) == posted[4:]
        assert ids_of("acked", cursors["acked"]) == [posted[3]]
        assert ids_of("acked") == [posted[0], posted[2], posted[3]]


def test_unknown_and_foreign_events_look_the_same(system: System) -> None:
    mine, other = make_tenant(system.settings, "mine"), make_tenant(system.settings, "other")
    test_mode = make_key(system.settings, mine.organization, mode="test")
    with httpx.Client(base_url=system.url, timeout=10) as client:
        event_id = client.post("/events", json={"type": "a.b", "payload": 1}, headers={"X-API-Key": mine.key}).json()["id"]
        until(lambda: client.get(f"/events/{event_id}", headers={"X-API-Key": mine.key}).json()["status"] == "accepted", 30, "the event")
        day_ago = ids.event_id(ids.event_time_ms(event_id) - 86_400_000, bytes(10))
        answers = [
            client.get(f"/events/{asked}", headers={"X-API-Key": key, "X-Request-Id": "same"})
            for asked, key in (
                (event_id, other.key),
                (event_id, test_mode.key),
                (day_ago, mine.key),
                (day_ago, other.key),
                ("evt_x", other.key),
            )
        ]
        acked = client.post("/inbox/ack", json={"ids": [event_id, day_ago]}, headers={"X-API-Key": other.key}).json()
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert [result["status"] for result in acked["results"]] == ["unknown", "unknown"]


def test_a_failing_endpoint_is_retried_on_schedule_and_given_up_into_the_dead_letters(system: System, receiver: Receiver) -> None:
    tenant = make_tenant(system.settings, "retries")
    _, receiver.secrets["/never"] = make_endpoint(system.settings, tenant.organization, receiver.url("/never"))
    _, receiver.secrets["/third"] = make_endpoint(system.settings, tenant.organization, receiver.url("/third"))
    receiver.answers["/never"] = lambda _one, _before: 500
    receiver.answers["/third"] = lambda _one, before: 503 if before < 2 else 200
    schedule = system.settings.delivery.schedule_s
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=10) as client:
        event_id = client.post("/events", json={"type": "retry.test", "payload": {"n": 1}}).json()["id"]

        def attempts() -> dict[str, list[dict[str, Any]]]:
            found = client.get(f"/events/{event_id}").json()
            return {d["endpoint_id"]: d["attempts"] for d in found.get("deliveries", [])}

        until(lambda: any(len(made) == len(schedule) + 1 for made in attempts().values()), 40, "the schedule being used up", 0.2)
        history = attempts()
        item = msgspec.json.decode(client.get("/inbox").content, type=Page).events[0]
    assert item.status == "failed"
    tried = receiver.of("/never")
    assert len(tried) == len(schedule) + 1
    assert len({one.body for one in tried}) == 1
    assert {one.headers["webhook-id"] for one in tried} == {event_id}
    assert all(one.verified for one in receiver.received)
    pauses = [later.at_s - earlier.at_s for earlier, later in pairwise(tried)]
    assert all(pause >= planned - 0.05 for pause, planned in zip(pauses, schedule, strict=True)), pauses
    assert len(receiver.of("/third")) == 3
    ended = sorted((made[-1]["outcome"], made[-1]["dead_reason"]) for made in history.values())
    assert ended == [("delivered", None), ("failed", "exhausted")]
