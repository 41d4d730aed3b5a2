"""Quotas as a producer meets them: batches counted by their items, headers on every answer of a counted request."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from access import organizations
from runtime.clock import SYSTEM
from runtime.postgres import connect
from schemas import ids
from schemas.topics import EVENTS_INGESTED
from tests.flow.raw import nothing_appended
from triggers.provision import make_key
from triggers.system import System

LIMIT = 12
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    """Of an organization that may send little."""
    with connect(system.settings.postgres, application="tests") as connection:
        made = organizations.create(
            connection, ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), name="little", plan="free",
            rate_limit_per_minute=LIMIT, actor="tests",
        )  # fmt: skip
    with httpx.Client(base_url=system.url, headers={"X-API-Key": make_key(system.settings, made.id).key}, timeout=15) as one:
        yield one


def left(answer: httpx.Response) -> int:
    """What the headers say is left, after a look at all of them."""
    assert answer.headers["RateLimit-Policy"] == f'"events";q={LIMIT};w=60'
    name, remaining, reset = answer.headers["RateLimit"].split(";")
    assert (name, remaining[:2], reset[:2]) == ('"events"', "r=", "t=")
    assert 1 <= int(reset[2:]) <= 61
    return int(remaining[2:])


def test_batches_count_by_their_items_and_every_answer_says_what_is_left(system: System, client: httpx.Client) -> None:
    event = {"type": "a.b", "payload": 1}
    # Each of these is one event of the quota, whatever becomes of it.
    answers = [
        client.post("/events", json=event),
        client.post("/events", json={**event, "idempotency_key": "k"}),
        client.post("/events", json={**event, "idempotency_key": "k"}),
        client.post("/events", json={**event, "payload": 2, "idempotency_key": "k"}),
        client.post("/events", content=b"{", headers=JSON),
        client.post("/events", content=b"x", headers={"Content-Type": "text/plain"}),
        client.post("/events", content=b" " * 300_000, headers=JSON),
        client.post("/events", json={"type": "not a type", "payload": 1}),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 409, 422, 400, 415, 413, 422]
    assert [left(answer) for answer in answers] == list(range(LIMIT - 1, LIMIT - 9, -1))

    batch = client.post("/events/batch", json=[{"type": "a.b", "payload": n, "idempotency_key": f"b{n}"} for n in range(7)])
    assert batch.status_code == 200
    assert left(batch) == 0
    results = batch.json()["results"]
    assert [result["status"] for result in results] == [201] * 4 + [429] * 3
    assert all(1 <= result["retry_after_s"] <= 61 for result in results[4:])

    with nothing_appended(system.settings, EVENTS_INGESTED):
        for refused in (client.post("/events", json=event), client.post("/events/batch", json=[event] * 3)):
            assert refused.status_code == 429
            assert left(refused) == 0
            assert 1 <= int(refused.headers["Retry-After"]) <= 61
        assert client.get("/inbox").status_code == 200, "reading is not counted"
