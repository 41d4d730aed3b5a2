"""Deliveries that were asked for, seen by a receiver: a test, one event again, what an endpoint missed; and what is told of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from runtime.postgres import connect
from triggers.cli import app
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, until

WAIT_S = 40.0
MARK = "x-triggers-delivery"


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "redeliveries")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


@pytest.fixture
def endpoint(system: System, tenant: Tenant, receiver: Receiver) -> str:
    made, receiver.secrets["/webhooks"] = make_endpoint(
        system.settings, tenant.organization, receiver.url(), event_types=["asked.*"], schedule_s=[1]
    )
    return made


def post(client: httpx.Client, number: int = 0) -> str:
    answer = client.post("/events", json={"type": "asked.for", "payload": {"n": number}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(client: httpx.Client, endpoint: str, what: str, status: int = 202, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/endpoints/{endpoint}/{what}", json=body or None)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def attempts(client: httpx.Client, endpoint: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/endpoints/{endpoint}/attempts", params={"limit": 250, **parameters})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["attempts"]
    return found


def dead(client: httpx.Client, endpoint: str) -> set[str]:
    return {one["event_id"] for one in attempts(client, endpoint, outcome="failed") if one["dead_reason"] and one["round"] is None}


def without_time(one: Received) -> tuple[bytes, str]:
    return one.body, one.headers["webhook-id"]


def test_a_test_arrives_signed_and_marked_also_at_a_disabled_endpoint_and_counts_for_nothing(
    system: System, client: httpx.Client, endpoint: str, receiver: Receiver
) -> None:
    asked = ask(client, endpoint, "test")
    until(lambda: len(receiver.of()) == 1, WAIT_S, "the test arriving", 0.1)
    (first,) = receiver.of()
    assert (first.verified, first.headers[MARK], first.headers["webhook-id"]) == (True, "test", asked["event_id"])
    assert json.loads(first.body)["type"] == "triggers.test"
    assert client.post(f"/endpoints/{endpoint}/disable").status_code == 200
    receiver.answers["/webhooks"] = lambda _, before: 410 if before == 1 else 204
    body = b'{"type": "other.kind", "payload": {"exact": 1.0,  "slice": true}}'
    answer = client.post(f"/endpoints/{endpoint}/test", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    second = answer.json()
    until(lambda: len(receiver.of()) == 2, WAIT_S, "the test at a disabled endpoint", 0.1)
    assert b'{"exact": 1.0,  "slice": true}' in receiver.of()[1].body
    until(lambda: len(attempts(client, endpoint)) == 2, WAIT_S, "both being shown", 0.1)
    shown = attempts(client, endpoint, round=second["round"])
    assert [(one["event_id"], one["cause"], one["status"], one["next"]) for one in shown] == [(second["event_id"], "test", 410, None)]
    state = client.get(f"/endpoints/{endpoint}").json()
    assert (state["disabled_reason"], state["failing_since"]) == ("owner", None)
    assert client.get("/inbox", params={"status": "all"}).json()["events"] == []
    assert client.get(f"/events/{asked['event_id']}").status_code == 404
    with connect(system.settings.postgres, application="tests") as connection:
        audited = connection.execute(
            "SELECT detail ->> 'round' FROM control.audit_log WHERE target = %s AND action = 'endpoint.test_requested' ORDER BY id",
            (endpoint,),
        ).fetchall()
    assert audited == [(asked["round"],), (second["round"],)]


def test_a_retry_arrives_as_the_same_webhook_with_attempts_of_its_own_beside_those_of_before(
    client: httpx.Client, endpoint: str, receiver: Receiver
) -> None:
    receiver.answers["/webhooks"] = lambda _, before: 500 if before < 3 else 204
    event = post(client, 1)
    until(lambda: dead(client, endpoint) == {event}, WAIT_S, "the dead letter", 0.2)
    until(lambda: client.get("/inbox").json()["events"][0]["status"] == "failed", WAIT_S, "its status", 0.2)
    asked = ask(client, endpoint, "retry", event_id=event)
    until(lambda: len(receiver.of()) == 4, WAIT_S, "the retry and its own retry", 0.1)
    arrived = receiver.of()
    assert len({without_time(one) for one in arrived}) == 1
    assert [one.headers.get(MARK) for one in arrived] == [None, None, "retry", "retry"]
    assert all(one.verified for one in arrived)
    until(lambda: len(attempts(client, endpoint)) == 4, WAIT_S, "all attempts being shown", 0.1)
    (delivery,) = client.get(f"/events/{event}").json()["deliveries"]
    told = [(one["round"], one["cause"], one["attempt"], one["outcome"], one["next"]) for one in delivery["attempts"]]
    mine = asked["round"]
    assert told == [
        (None, None, 1, "failed", "retry"), (None, None, 2, "failed", "dead"), (mine, "retry", 1, "failed", "retry"),
        (mine, "retry", 2, "delivered", None),
    ]  # fmt: skip
    assert [one["attempt"] for one in attempts(client, endpoint, round=mine)] == [2, 1]
    (shown,) = [one for one in client.get("/inbox").json()["events"] if one["id"] == event]
    assert shown["status"] == "delivered"


@pytest.mark.parametrize(
    "place",
    [
        "recovery.in_page:3",
        pytest.param("recovery.after_plan:1", marks=pytest.mark.verify),
        pytest.param("recovery.after_some:1", marks=pytest.mark.verify),
        pytest.param("recovery.after_rest:1", marks=pytest.mark.verify),
    ],
)
def test_what_was_missed_is_recovered_once_though_the_worker_is_killed_in_the_middle_and_though_it_is_asked_for_twice(
    system: System, client: httpx.Client, endpoint: str, receiver: Receiver, tmp_path: Path, place: str
) -> None:
    failing = True
    receiver.answers["/webhooks"] = lambda _, __: 500 if failing else 204
    before = post(client, -1)
    until(lambda: dead(client, endpoint) == {before}, WAIT_S, "what died before", 0.2)
    failing = False
    taken = post(client, -2)
    until(lambda: receiver.of()[-1].headers["webhook-id"] == taken, WAIT_S, "what needs no recovery", 0.1)
    until(lambda: client.get(f"/events/{taken}").json()["status"] == "accepted", WAIT_S, "its being in the inbox", 0.1)
    since = client.get(f"/events/{taken}").json()["received_at"]
    failing = True
    lost = {post(client, n) for n in range(6)}
    until(lambda: dead(client, endpoint) == {before, *lost}, WAIT_S, "the dead letters", 0.2)
    assert client.post(f"/endpoints/{endpoint}/disable").status_code == 200
    held = {post(client, 10 + n) for n in range(6)}
    until(lambda: client.get(f"/endpoints/{endpoint}/held").json()["held"] == 6, WAIT_S, "what is held", 0.2)
    ask(client, endpoint, "recover", 409, since=since)
    failing = False
    assert client.post(f"/endpoints/{endpoint}/enable").json()["missed"]["deliveries"] == 13
    if "rest" in place:  # so slow that it does not come to its end in one go
        assert client.patch(f"/endpoints/{endpoint}", json={"rate_per_minute": 40}).status_code == 200
    armed = tmp_path / "delivery.crash"
    armed.write_text(place)
    system.supervisor.stop("delivery")
    system.start_process("delivery", ("deliver",), {"TRIGGERS_CRASH_FILE": str(armed)})
    first = ask(client, endpoint, "recover", since=since)
    assert (first["deliveries"], first["more"]) == (12, False)
    ask(client, endpoint, "recover", since=since)  # the two may share the work; neither does any of the other's
    until(lambda: not armed.exists(), WAIT_S, "the worker dying in the middle", 0.1)

    def recovered() -> Counter[str]:
        return Counter(one["event_id"] for one in attempts(client, endpoint, outcome="delivered") if one["cause"] == "recover")

    until(lambda: recovered().keys() == lost | held, 60, "everything being recovered", 0.2)
    ask(client, endpoint, "test")  # comes after both recoveries in the log
    until(lambda: any(one.headers.get(MARK) == "test" for one in receiver.of()), WAIT_S, "what was asked for later", 0.1)
    arrived = Counter(one.headers["webhook-id"] for one in receiver.of() if one.headers.get(MARK) == "recover")
    assert arrived.keys() == lost | held
    assert sum(arrived.values()) <= 12 + 4, "each kill may repeat what was under way, and nothing else"
    assert set(recovered().values()) == {1}
    assert ask(client, endpoint, "recover", since=since)["deliveries"] == 0
    assert client.get("/inbox", params={"status": "all"}).json()["events"][-1]["status"] == "delivered"


def test_another_organizations_key_finds_nothing_to_ask_for(system: System, client: httpx.Client, endpoint: str) -> None:
    event = post(client)
    until(lambda: client.get(f"/events/{event}").json()["status"] == "accepted", WAIT_S, "the event", 0.1)
    other = make_tenant(system.settings, "others")
    own, _ = make_endpoint(system.settings, other.organization, "http://127.0.0.1:9/", event_types=["never"])
    with httpx.Client(base_url=system.url, headers={"X-API-Key": other.key}, timeout=15) as theirs:
        ask(theirs, endpoint, "test", 404)
        ask(theirs, endpoint, "retry", 404, event_id=event)
        ask(theirs, own, "retry", 404, event_id=event)
        ask(theirs, endpoint, "recover", 404, since="2026-01-01T00:00:00Z")
    ask(client, endpoint, "recover", 422, since="2026-01-02T00:00:00Z", until="2026-01-01T00:00:00Z")
    ask(client, endpoint, "retry", 404, event_id="evt_no")
    ask(client, endpoint, "test", 422, type="triggers.endpoint.failing")


def test_a_redrive_delivers_dead_letters_once_keeps_their_history_and_leaves_what_is_held_or_was_dropped(
    system: System, client: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    receiver.answers["/webhooks"] = lambda _, before: 500 if before < 6 else 204
    lost = {post(client, n) for n in range(3)}
    until(lambda: dead(client, endpoint) == lost, WAIT_S, "the dead letters", 0.2)
    assert client.post(f"/endpoints/{endpoint}/disable").status_code == 200
    post(client, 9)
    until(lambda: client.get(f"/endpoints/{endpoint}/held").json()["held"] == 1, WAIT_S, "what is held", 0.2)
    assert client.post(f"/endpoints/{endpoint}/enable").status_code == 200

    def run(*arguments: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(app, ["dead", *arguments, "--json"], env=dict(system.environment))
        assert done.exit_code == 0, done.output
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return found[0] if found and isinstance(found[0], list) else found

    def redrive(*more: str) -> list[dict[str, Any]]:
        return run("redrive", "--organization", tenant.organization, *more)

    dropped = sorted(lost)[1]
    (letter,) = run("list", "--organization", tenant.organization, "--event", dropped)
    run("drop", letter["place"])
    assert redrive("--event", dropped) == []
    lost.remove(dropped)
    (one,) = redrive("--event", min(lost))  # at once: a worker may still believe that the endpoint is disabled
    until(lambda: len(attempts(client, endpoint, round=one["round"])) == 1, WAIT_S, "the one that was named", 0.2)
    assert [(row["endpoint_id"], row["deliveries"], row["round"]) for row in redrive("--dry-run")] == [(endpoint, 1, None)]
    (rest,) = redrive("--since", "1h")
    assert rest["deliveries"] == 1
    until(lambda: len(attempts(client, endpoint, round=rest["round"])) == 1, WAIT_S, "the other", 0.2)
    assert redrive() == []
    assert [each.headers.get(MARK) for each in receiver.of()] == [None] * 6 + ["redrive"] * 2
    for event in lost:
        (delivery,) = client.get(f"/events/{event}").json()["deliveries"]
        told = [(made["cause"], made["outcome"], made["dead_reason"]) for made in delivery["attempts"]]
        assert told == [(None, "failed", None), (None, "failed", "exhausted"), ("redrive", "delivered", None)]
