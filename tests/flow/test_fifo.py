"""FIFO endpoints, checked by the receiver: strict order whatever it answers, at nobody else's cost, and what ends an event's turn."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, until

WAIT_S = 60.0
EVENTS = 25


class Reset(Exception):
    """Raised where a request is taken: its connection ends without an answer."""


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "fifo")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


def add(system: System, tenant: Tenant, receiver: Receiver, path: str, **members: Any) -> str:
    endpoint, receiver.secrets[path] = make_endpoint(system.settings, tenant.organization, receiver.url(path), **members)
    return endpoint


def post(client: httpx.Client, count: int, kind: str = "fifo.test") -> list[str]:
    posted = []
    for number in range(count):
        answer = client.post("/events", json={"type": kind, "payload": {"n": number}})
        assert answer.status_code == 201, answer.text
        posted.append(str(answer.json()["id"]))
    return posted


def ids_at(receiver: Receiver, path: str) -> list[str]:
    """The webhook ids that came to a path, repeated attempts at one event right after each other counted once."""
    found: list[str] = []
    for one in receiver.of(path):
        if found[-1:] != [one.headers["webhook-id"]]:
            found.append(one.headers["webhook-id"])
    return found


def outcomes(client: httpx.Client, event_id: str, endpoint_id: str) -> list[tuple[str, str | None]]:
    """(outcome, dead reason) of each attempt at an event."""
    deliveries = client.get(f"/events/{event_id}").json().get("deliveries", [])
    return [(a["outcome"], a["dead_reason"]) for d in deliveries if d["endpoint_id"] == endpoint_id for a in d["attempts"]]


def is_over(client: httpx.Client, event_id: str, endpoint_id: str) -> bool:
    made = outcomes(client, event_id, endpoint_id)
    return bool(made) and (made[-1][0] == "delivered" or made[-1][1] is not None)


def shown(client: httpx.Client, endpoint_id: str) -> dict[str, Any]:
    document: dict[str, Any] = client.get(f"/endpoints/{endpoint_id}").json()
    return document


def test_a_receiver_that_fails_at_random_sees_every_event_in_order_and_no_later_one_before_an_earlier_one_is_over(
    system: System, tenant: Tenant, client: httpx.Client, receiver: Receiver
) -> None:
    chosen = random.Random(5)
    let_go = threading.Event()

    def answer(_: Received, __: int) -> int:
        what = chosen.choice(("204", "204", "204", "500", "reset", "hang" if chosen.random() < 0.2 else "503"))
        if what == "reset":
            raise Reset
        if what == "hang":
            let_go.wait(1.5)  # longer than the endpoint's deadline
            raise Reset
        return int(what)

    receiver.answers["/ordered"] = answer
    ordered = add(system, tenant, receiver, "/ordered", fifo=True, deadline_s=1)
    other = add(system, tenant, receiver, "/other")
    try:
        posted = post(client, EVENTS)
        until(lambda: len(receiver.of("/other")) == EVENTS, 15, "the other endpoint, which waits for nobody", 0.05)
        assert len(ids_at(receiver, "/ordered")) < EVENTS, "it was not slowed down by its failures"
        until(lambda: all(is_over(client, one, ordered) for one in posted), WAIT_S, "each event being delivered or given up", 0.5)
    finally:
        let_go.set()
    assert ids_at(receiver, "/ordered") == posted
    assert all(one.verified for one in receiver.of("/ordered"))
    for event_id in posted:
        made = outcomes(client, event_id, ordered)
        assert 1 <= len(made) <= 4
        assert made[-1] in (("delivered", None), ("failed", "exhausted"))
        assert len([one for one in receiver.of("/ordered") if one.headers["webhook-id"] == event_id]) == len(made)
        assert outcomes(client, event_id, other) == [("delivered", None)]
