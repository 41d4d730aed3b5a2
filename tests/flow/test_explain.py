"""`triggers explain`: the same story from Postgres and from the log alone, for everything that can become of an event."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from runtime.clock import SYSTEM
from schemas import ids, keys
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_INGESTED, INBOX_ACKS
from tests.flow.topics import write_records
from triggers.cli import app
from triggers.commands.explain import EXIT_NOT_FOUND
from triggers.devstack.ports import free_ports
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

Explain = Callable[..., Result]


@pytest.fixture
def run(system: System) -> Explain:
    def run(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(app, ["explain", *arguments], env={**system.environment, **more})

    return run


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "explained")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:
        yield client


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, (result.stderr, result.exception)
    made: dict[str, Any] = json.loads(result.stdout)
    return made


def story(made: dict[str, Any]) -> dict[str, Any]:
    """Without where it was read, and without the place of the loss, which no fold keeps."""
    return {**made, "source": None, "lost_to": made["lost_to"] and {**made["lost_to"], "at": None}}


def post(client: httpx.Client, status: int = 201, **members: Any) -> str:
    answer = client.post("/events", json={"type": "order.paid", "payload": {"n": 1}, **members})
    assert answer.status_code == status, answer.text
    return str(answer.json()["id"])


def accepted(client: httpx.Client, event_id: str) -> None:
    until(lambda: bool(client.get(f"/events/{event_id}").json()["status"] == "accepted"), 30, "the event")


def test_an_event_with_every_kind_of_delivery_has_the_same_story_from_postgres_and_from_the_log(
    run: Explain, tenant: Tenant, client: httpx.Client, system: System
) -> None:
    hour: dict[str, Any] = {"schedule": "custom", "schedule_s": [3_600]}
    with Receiver() as good, Receiver() as bad:
        bad.answers["/webhooks"] = lambda _received, _before: 500
        delivered, _ = make_endpoint(system.settings, tenant.organization, good.url())
        dead, _ = make_endpoint(system.settings, tenant.organization, bad.url())
        retrying, _ = make_endpoint(system.settings, tenant.organization, bad.url(), **hour)
        disabled, _ = make_endpoint(system.settings, tenant.organization, good.url("/disabled"))
        assert client.post(f"/endpoints/{disabled}/disable").status_code == 200
        trace = "0af7651916cd43dd8448eb211c80319c"
        client.headers["traceparent"] = f"00-{trace}-b7ad6b7169203331-01"
        event_id = post(client, idempotency_key="order-17", subject="order/17")
        accepted(client, event_id)
        assert client.post("/inbox/ack", json={"ids": [event_id]}).json()["acknowledged"] == 1

        def states() -> dict[str, str]:
            found = told(run(event_id, "--json", "--from-log"))["deliveries"]
            return {one["endpoint_id"]: one["state"] for one in found}

        wanted = {delivered: "delivered", dead: "dead", retrying: "retrying"}
        until(lambda: states() == wanted, 60, "every delivery", 0.3)
        from_log = told(run(event_id, "--json", "--from-log"))
        until(lambda: story(told(run(event_id, "--json")))["deliveries"][0]["attempts"] != [], 30, "the fold")
        from_folds = told(run(event_id, "--json", "--organization", tenant.organization))
        people = run(event_id).stdout
        seen = client.get(f"/events/{event_id}").json()

    coming = {one["endpoint_id"]: one.pop("next") for made in (from_log, from_folds) for one in made["deliveries"]}
    assert story(from_log) == story(from_folds)  # the next attempt hops from topic to topic meanwhile
    assert (from_log["source"]["folds"], from_folds["source"]["folds"]) == ("not asked", "read")
    assert from_log["source"]["whole"] and from_folds["source"]["whole"]

    # What its owner sees is the same, without the workings of the log.
    assert {one["endpoint_id"]: one["state"] for one in seen["deliveries"]} == wanted
    upcoming = {one["endpoint_id"]: one["next_attempt"] for one in seen["deliveries"]}
    assert upcoming == {delivered: None, dead: None, retrying: {"attempt": 2, "not_before": coming[retrying]["not_before"]}}
    assert seen["held"] == from_log["plan"]["held"] == [disabled]

    assert coming[delivered] is coming[dead] is None
    assert coming[retrying]["attempt"] == 2
    assert coming[retrying]["waits_on"]["topic"] == "deliveries.retry.2s"  # the largest delay of the tests
    partition = keys.partition_of(keys.record_key(tenant.organization), system.settings.kafka.partitions)
    (copy,) = from_log["ingested"]
    assert (copy["topic"], copy["partition"], copy["verdict"]) == (EVENTS_INGESTED, partition, "first")
    assert (from_log["status"], from_log["organization"], from_log["mode"]) == ("accepted", tenant.organization, "live")
    assert (from_log["trace_id"], from_log["event"]["dedup_key"]) == (trace, "k:order-17")
    assert from_log["accepted"]["topic"] == EVENTS_ACCEPTED
    assert from_log["ack"]["topic"] == INBOX_ACKS
    assert from_log["plan"]["topic"] == DELIVERIES_ATTEMPTS
    by_endpoint = {one["endpoint_id"]: one for one in from_log["deliveries"]}
    assert [one["status"] for one in by_endpoint[dead]["attempts"]] == [500] * 4
    assert by_endpoint[dead]["dead_letter"]["topic"] == "deliveries.dead"
    assert by_endpoint[delivered]["dead_letter"] is None
    for line in (
        f"trace         {trace}",
        "ack           inbox.acks[",
        f"{retrying}: retrying",
        "waits on deliveries.retry.2s[",
        "then dead:",
    ):
        assert line in people


def test_a_round_that_was_asked_for_is_told_with_its_cause_from_either_side(
    run: Explain, tenant: Tenant, client: httpx.Client, system: System
) -> None:
    with Receiver() as receiver:
        endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
        event_id = post(client)
        until(lambda: len(receiver.of()) == 1, 30, "the first delivery")
        accepted(client, event_id)
        assert CliRunner().invoke(app, ["endpoint", "retry", endpoint, event_id], env=system.environment).exit_code == 0
        until(lambda: len(receiver.of()) == 2, 30, "the second delivery")
        until(lambda: len(client.get(f"/events/{event_id}").json()["deliveries"][0]["attempts"]) == 2, 30, "its fold")
    from_log, from_folds = told(run(event_id, "--json", "--from-log")), told(run(event_id, "--json"))
    assert story(from_log) == story(from_folds)
    (delivery,) = from_log["deliveries"]
    (asked,) = delivery["rounds"]
    assert (delivery["state"], asked["cause"]) == ("delivered", "retry")
    assert [(one["attempt"], one["round"]) for one in delivery["attempts"]] == [(1, None), (1, asked["round"])]
    assert f"asked for: retry, {asked['round']}" in run(event_id).stdout


def test_a_duplicate_and_a_conflict_name_the_event_they_lost_to_from_either_side(
    run: Explain, client: httpx.Client, system: System
) -> None:
    first = post(client, idempotency_key="k")
    accepted(client, first)
    for payload, kind in (({"n": 1}, "duplicate"), ({"n": 2}, "conflict")):
        # The API would refuse it: another event under the same key reaches the log when Redis has forgotten.
        lost = ids.event_id(ids.event_time_ms(ids.EventId(first)), kind.encode().ljust(10, b"."))
        write_copy(system, first, lost, payload)
        until(partial(is_folded, run, lost), 30, "the fold of duplicates", 0.2)
        from_log, from_folds = told(run(lost, "--json", "--from-log")), told(run(lost, "--json"))
        assert from_log["lost_to"]["original_id"] == first
        assert [one["verdict"] for one in from_log["ingested"]] == [kind]
        assert {**story(from_log), "event": None} == {**story(from_folds), "event": None}
        assert f"dedup         {kind} of {first}" in run(lost).stdout


def is_folded(run: Explain, event_id: str) -> bool:
    """Once Postgres knows it, one record of the log tells the rest."""
    return len(told(run(event_id, "--json"))["source"]["spans"]) == 1


def write_copy(system: System, first: str, other: str, payload: dict[str, int]) -> None:
    """The ingested record of `first` again as another event."""
    made = told(CliRunner().invoke(app, ["explain", first, "--json"], env=system.environment))
    organization = made["organization"]
    raw = json.dumps(payload, separators=(",", ":")).encode()
    record = {
        "v": 1, "id": other, "organization": organization, "mode": made["mode"], "type": "order.paid",
        "received_at_ms": ids.event_time_ms(ids.EventId(other)), "fingerprint": keys.fingerprint("order.paid", None, raw),
        "dedup_key": made["event"]["dedup_key"], "payload": payload,
    }  # fmt: skip
    value = json.dumps(record, separators=(",", ":")).encode()
    write_records(system.settings, EVENTS_INGESTED, [(organization.encode(), value, made["ingested"][0]["partition"])])


def test_a_record_that_cannot_be_read_is_told_with_its_reason(run: Explain, tenant: Tenant, system: System) -> None:
    event_id = ids.event_id(SYSTEM.now_ms(), b"unreadable")
    key = keys.record_key(tenant.organization)
    partition = keys.partition_of(key, system.settings.kafka.partitions)
    write_records(system.settings, EVENTS_INGESTED, [(key, b'{"v":9,"id":"%b"}' % event_id.encode(), partition)])
    until(lambda: told(run(event_id, "--json"))["status"] == "rejected", 30, "dedup", 0.2)
    made = told(run(event_id, "--json"))
    (one,) = made["rejected"]
    assert (one["reason"], one["of"]["topic"]) == ("unknown_version", EVENTS_INGESTED)
    assert [copy["verdict"] for copy in made["ingested"]] == ["rejected"]


def test_without_postgres_the_log_alone_tells_it_and_says_so(run: Explain, client: httpx.Client, tenant: Tenant) -> None:
    event_id = post(client)
    accepted(client, event_id)
    away = {"TRIGGERS_POSTGRES__DSN": f"postgresql://u:hunter2@127.0.0.1:{free_ports(1)[0]}/x"}
    result = run(event_id, "--json", **away)
    made = told(result)
    assert (made["status"], made["organization"]) == ("accepted", tenant.organization)
    assert "refused" in made["source"]["folds"]
    assert "hunter2" not in result.stdout + run(event_id, **away).stdout


def test_without_kafka_the_folds_tell_what_they_know_and_without_both_it_fails(run: Explain, client: httpx.Client) -> None:
    event_id = post(client)
    accepted(client, event_id)
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    away = {"TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": nowhere, "TRIGGERS_OPERATING__STALL_TIMEOUT_S": "1"}
    made = told(run(event_id, "--json", **away))
    assert (made["status"], made["source"]["folds"], made["source"]["whole"]) == ("accepted", "read", False)
    assert "is the broker up?" in made["source"]["log"]
    result = run(event_id, **away, TRIGGERS_POSTGRES__DSN=f"postgresql://u@{nowhere}/x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the log could not be read" in result.stderr


def test_an_id_that_nobody_knows_ends_with_its_own_status_and_says_what_was_read(run: Explain, client: httpx.Client) -> None:
    event_id = post(client)
    accepted(client, event_id)
    other = make_id_like(event_id)
    for arguments in ([other], [other, "--from-log"], [event_id, "--organization", ids.organization_id(1, bytes(10))]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (EXIT_NOT_FOUND, "")
        assert "events.ingested[" in result.stderr
        assert "--within 24h" in result.stderr
    result = run("evt_1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not an event's id" in result.stderr


def make_id_like(event_id: str) -> str:
    return ids.event_id(ids.event_time_ms(ids.EventId(event_id)), b"0123456789")


def test_a_limit_of_records_that_came_first_is_said(run: Explain, client: httpx.Client, tenant: Tenant) -> None:
    *_, event_id = [post(client) for _ in range(3)]
    accepted(client, event_id)
    result = run(event_id, "--from-log", "--organization", tenant.organization, TRIGGERS_OPERATING__READ_RECORDS_MAX="1")
    assert result.exit_code == EXIT_NOT_FOUND
    assert "The limit of records came first: raise TRIGGERS_OPERATING__READ_RECORDS_MAX" in result.stderr
