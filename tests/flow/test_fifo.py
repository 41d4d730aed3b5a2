"""FIFO endpoints, checked by the receiver: strict order whatever it answers, at nobody else's cost, and what ends an event's turn."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from schemas.topics import DELIVERIES_FIFO
from tests.flow.topics import read_topic
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, until

WAIT_S = 60.0
EVENTS = 15


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
        what = chosen.choice(("204", "204", "204", "204", "500", "reset", "hang" if chosen.random() < 0.2 else "503"))
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


def test_an_endpoint_that_waits_an_hour_for_a_retry_holds_nobody_and_when_it_is_deleted_what_is_left_is_given_up(
    system: System, tenant: Tenant, client: httpx.Client, receiver: Receiver
) -> None:
    receiver.answers["/stuck"] = lambda _, __: 500
    stuck = add(system, tenant, receiver, "/stuck", fifo=True, schedule_s=[3600])
    for path, fifo in (("/ordered", True), ("/plain", False)):
        add(system, tenant, receiver, path, fifo=fifo)
    posted = post(client, 1)
    until(lambda: len(receiver.of("/stuck")) == 1, WAIT_S, "the attempt that fails", 0.05)
    posted += post(client, EVENTS)
    until(
        lambda: all(len(receiver.of(path)) == len(posted) for path in ("/ordered", "/plain")), WAIT_S, "the others getting everything", 0.05
    )
    assert ids_at(receiver, "/ordered") == posted
    assert len(receiver.of("/stuck")) == 1
    until(lambda: outcomes(client, posted[0], stuck) == [("failed", None)], WAIT_S, "the failed attempt in the read side", 0.2)
    last = f"/events/{posted[-1]}"

    def waiting() -> list[Any]:
        return [one["attempts"] for one in client.get(last).json().get("deliveries", []) if one["endpoint_id"] == stuck]

    until(lambda: waiting() == [[]], WAIT_S, "the last event showing a delivery without an attempt", 0.2)
    assert client.delete(f"/endpoints/{stuck}").status_code == 204
    until(lambda: all(is_over(client, one, stuck) for one in posted), WAIT_S, "what is left being given up", 0.5)
    assert outcomes(client, posted[0], stuck) == [("failed", None), ("failed", "endpoint_missing")]
    assert all(outcomes(client, one, stuck) == [("failed", "endpoint_missing")] for one in posted[1:])
    assert len(receiver.of("/stuck")) == 1

    def positions() -> list[bytes | None]:
        return [one.value for one in read_topic(system.settings, DELIVERIES_FIFO) if one.key == stuck.encode()]

    until(lambda: positions()[-1] is None, WAIT_S, "its position being taken out of the log", 0.2)


def test_one_that_blocks_waits_for_an_event_whose_schedule_is_used_up_says_so_and_goes_on_when_it_is_released(
    system: System, tenant: Tenant, client: httpx.Client, receiver: Receiver
) -> None:
    receiver.answers["/blocks"] = lambda one, _: 500 if one.headers["webhook-id"] == posted[1] else 204
    blocks = add(system, tenant, receiver, "/blocks", fifo=True, fifo_block=True, schedule_s=[1])
    posted: list[str] = []
    posted += post(client, 1)
    until(lambda: len(receiver.of("/blocks")) == 1, WAIT_S, "the first event", 0.05)
    assert shown(client, blocks)["blocked_event_id"] is None
    posted += post(client, 3)
    until(lambda: shown(client, blocks)["blocked_event_id"] == posted[1], WAIT_S, "it saying what it waits for", 0.1)
    assert shown(client, blocks)["blocked_since"] is not None
    told = [one for one in client.get("/inbox", params={"status": "all"}).json()["events"] if one["type"] == "triggers.endpoint.failing"]
    until(lambda: len(outcomes(client, posted[1], blocks)) == 2, WAIT_S, "both attempts in the read side", 0.2)
    assert ids_at(receiver, "/blocks") == posted[:2]
    assert client.patch(f"/endpoints/{blocks}", json={"fifo_block": False}).status_code == 200
    until(lambda: is_over(client, posted[-1], blocks), WAIT_S, "the last event", 0.2)
    assert ids_at(receiver, "/blocks") == posted
    assert outcomes(client, posted[1], blocks) == [("failed", None), ("failed", None), ("failed", "exhausted")]
    until(lambda: shown(client, blocks)["blocked_event_id"] is None, WAIT_S, "it saying that it goes on", 0.1)

    def kinds() -> list[str]:
        return [one["type"] for one in client.get("/inbox", params={"status": "all"}).json()["events"] if one["type"] != "fifo.test"]

    until(lambda: len(kinds()) == 3, WAIT_S, "all being told", 0.2)
    assert sorted(kinds()) == ["triggers.delivery.dead", "triggers.endpoint.failing", "triggers.endpoint.recovered"], told


def test_one_that_is_disabled_keeps_its_place_and_goes_on_there_without_what_was_held(
    system: System, tenant: Tenant, client: httpx.Client, receiver: Receiver
) -> None:
    fails = threading.Event()
    fails.set()
    receiver.answers["/paused"] = lambda _, __: 500 if fails.is_set() else 204
    paused = add(system, tenant, receiver, "/paused", fifo=True, schedule_s=[1, 1, 1, 1, 1])
    add(system, tenant, receiver, "/plain")
    before = post(client, 3)
    until(lambda: len(receiver.of("/paused")) >= 1 and len(receiver.of("/plain")) == 3, WAIT_S, "the first attempt", 0.05)
    assert client.post(f"/endpoints/{paused}/disable").status_code == 200
    held = post(client, 2)
    until(lambda: client.get(f"/endpoints/{paused}/held").json()["held"] == 2, WAIT_S, "what comes now being held", 0.2)
    fails.clear()
    seen = len(receiver.of("/paused"))
    assert client.post(f"/endpoints/{paused}/enable").status_code == 200
    after = post(client, 2)
    until(lambda: is_over(client, after[-1], paused), WAIT_S, "what came after", 0.2)
    assert ids_at(receiver, "/paused") == [*before, *after]
    assert len(receiver.of("/paused")) == seen + len(before) + len(after), "something was sent twice"
    assert all(outcomes(client, one, paused)[-1] == ("delivered", None) for one in before)
    assert not any(outcomes(client, one, paused) for one in held)
