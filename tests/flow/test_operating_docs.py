"""The commands of the runbooks in docs/operating/ are run on the running system, and what they print is what stands below them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from schemas import keys
from schemas.topics import EVENTS_INGESTED
from tests import runbooks
from triggers.cli import app
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until


@pytest.fixture
def variables(page: str, system: System) -> Iterator[Mapping[str, str]]:
    """What the page speaks of."""
    tenant = make_tenant(system.settings, f"runbook {page}")
    with Receiver() as receiver, httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:
        made = SPOKEN_OF[page](system, tenant, receiver, client) if page in SPOKEN_OF else {}
        yield {"ORG": tenant.organization, "URL": system.url, **made}


def an_event(system: System, tenant: Tenant, receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    """Acknowledged, with one delivery done and one that is tried again in an hour, in the order in which the page shows them."""
    receiver.answers["/broken"] = lambda _received, _before: 500
    make_endpoint(system.settings, tenant.organization, receiver.url())
    make_endpoint(system.settings, tenant.organization, receiver.url("/broken"), schedule="custom", schedule_s=[3_600])
    event_id = post(client)
    until(lambda: attempts(client, event_id) == [1, 1], 60, "both attempts", 0.2)
    assert client.post("/inbox/ack", json={"ids": [event_id]}).json()["acknowledged"] == 1
    return {"EVENT": event_id}


def a_dead_letter(system: System, tenant: Tenant, receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    """One delivery that was answered 410, and one record of the future, which dedup rejects."""
    receiver.answers["/webhooks"] = lambda _received, _before: 410
    endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
    event_id = post(client)
    until(lambda: attempts(client, event_id) == [1], 60, "the attempt", 0.2)
    key = keys.record_key(tenant.organization)
    value = b'{"v":9,"id":"%b"}' % event_id.encode()
    headers: list[tuple[str, str | bytes | None]] = [("event-id", event_id.encode())]
    producer = Producer({"bootstrap.servers": system.settings.kafka.bootstrap_servers})
    producer.produce(EVENTS_INGESTED, value, key, keys.partition_of(key, system.settings.kafka.partitions), headers=headers)
    assert producer.flush(20) == 0
    places: dict[str, str] = {"ENDPOINT": endpoint}

    def both() -> bool:
        for name, command in (("DEAD", "dead"), ("REJECTED", "rejected")):
            ran = CliRunner().invoke(app, [command, "list", "--organization", tenant.organization, "--json"], env=system.environment)
            for line in ran.stdout.splitlines():
                places[name] = json.loads(line)["place"]
        return len(places) == 3

    until(both, 60, "the letter and the rejected record", 0.2)
    return places


def an_encrypted_event(system: System, tenant: Tenant, _receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    """Of the subject that the page erases, posted once encryption is on, as it is when the page turns it on."""
    ran = CliRunner().invoke(app, ["encryption", "on", tenant.organization], env=system.environment)
    assert ran.exit_code == 0, ran.output
    answer = client.post("/events", json={"type": "a.b", "payload": 1, "subject": "jane@example.com"})
    assert answer.status_code == 201, answer.text
    return {}


def settled_groups(system: System, _tenant: Tenant, _receiver: Receiver, _client: httpx.Client) -> dict[str, str]:
    """The system may have started a moment ago: its workers are still getting their partitions."""

    def settled() -> bool:
        ran = CliRunner().invoke(app, ["doctor", "--only=groups", "--json"], env=system.environment)
        return bool(json.loads(ran.stdout)["severity"] == "ok")

    until(settled, 60, "groups that have all their partitions", 0.5)
    return {}


def post(client: httpx.Client) -> str:
    raw = b'{"type":"order.paid","payload":{"order":17,"amount":20.5},"subject":"order/17","idempotency_key":"order-17"}'
    return str(client.post("/events", content=raw, headers={"Content-Type": "application/json"}).json()["id"])


def attempts(client: httpx.Client, event_id: str) -> list[int]:
    """Of each delivery."""
    return [len(one["attempts"]) for one in client.get(f"/events/{event_id}").json().get("deliveries", [])]


def a_dead_endpoint(system: System, tenant: Tenant, receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    """One that answered 410 to one event, and would take everything now."""
    receiver.answers["/webhooks"] = lambda _received, before: 410 if before == 0 else 204
    endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
    event_id = post(client)
    until(lambda: attempts(client, event_id) == [1], 60, "the attempt", 0.2)

    def given_up() -> bool:
        ran = CliRunner().invoke(app, ["dead", "list", "--endpoint", endpoint, "--json"], env=system.environment)
        return bool(ran.stdout)

    until(given_up, 60, "the dead letter", 0.2)
    until(lambda: not client.get(f"/endpoints/{endpoint}").json()["enabled"], 60, "the endpoint being disabled", 0.2)
    return {"ENDPOINT": endpoint, "EVENT": event_id}


def an_accepted_event(system: System, tenant: Tenant, receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    settled_groups(system, tenant, receiver, client)
    event_id = post(client)
    until(lambda: client.get(f"/events/{event_id}").json()["status"] == "accepted", 60, "the event being accepted", 0.2)
    return {"EVENT": event_id}


def sixty_events(system: System, tenant: Tenant, receiver: Receiver, client: httpx.Client) -> dict[str, str]:
    """Delivered to an endpoint: more than a replay makes while the page looks at it."""
    endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
    assert client.post("/events/batch", json=[{"type": "order.paid", "payload": {"n": n}} for n in range(60)]).status_code == 200
    until(lambda: len({one.headers["webhook-id"] for one in receiver.of("/webhooks")}) == 60, 60, "every delivery", 0.2)
    return {"ENDPOINT": endpoint}


#: What has to be there before a page makes sense.
SPOKEN_OF = {
    "audit.md": an_accepted_event,
    "dead-letters.md": a_dead_letter,
    "doctor.md": settled_groups,
    "erasure.md": an_encrypted_event,
    "explain.md": an_event,
    "failing-endpoints.md": a_dead_endpoint,
    "falling-behind.md": an_accepted_event,
    "replay.md": sixty_events,
}


@pytest.mark.parametrize("page", runbooks.RUNNING)
def test_the_commands_of_a_runbook_print_what_it_says(page: str, system: System, variables: Mapping[str, str], tmp_path: Path) -> None:
    limits = {"TRIGGERS_OPERATING__CHECK_TIMEOUT_S": "50"}  # on a crowded machine
    runbooks.run_page(page, {**system.environment, **limits, **variables}, tmp_path)
