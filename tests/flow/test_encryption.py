"""An organization that asked for encryption, from its first event to its erasure: readable by those who may, then by nobody, anywhere."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from access import epoch
from runtime import topics
from runtime.kafka import client_config
from runtime.postgres import connect
from schemas.topics import declared
from triggers.cli import app
from triggers.erasure import reapply
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, argv, until

WAIT_S = 60.0
SUBJECT = "canary-subject@example.com"
SECRET = "canary-payload-3141592653"
ANSWER = b"canary-answer-2718281828"
PAYLOAD = b'{ "name" : "%b",\n "n": 1.0 }' % SECRET.encode()


@pytest.fixture
def tenant(system: System) -> Tenant:
    made = make_tenant(system.settings, "encrypted")
    assert command(system, "encryption", "on", made.organization)["encryption"] is True
    return made


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as one:
        yield one


def command(system: System, *arguments: str) -> Any:
    ran = CliRunner().invoke(app, [*arguments, "--json"], env=dict(system.environment))
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return json.loads(ran.stdout)


def post(client: httpx.Client, key: str, subject: str | None = SUBJECT, payload: bytes = PAYLOAD, status: int = 201) -> str:
    about = b"" if subject is None else b', "subject": "%b"' % subject.encode()
    body = b'{"type": "a.b", "idempotency_key": "%b", "payload": %b%b}' % (key.encode(), payload, about)
    answer = client.post("/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    return str(answer.json()["id"])


def state(client: httpx.Client, event_id: str) -> dict[str, Any]:
    answer = client.get(f"/events/{event_id}")
    return dict(answer.json()) if answer.status_code == 200 else {}


def is_over(client: httpx.Client, event_id: str) -> bool:
    deliveries = state(client, event_id).get("deliveries", [])
    return bool(deliveries) and all(one["state"] in ("delivered", "dead") for one in deliveries)


def audited(system: System, tenant: Tenant) -> list[Any]:
    with connect(system.settings.postgres, application="test") as connection:
        return connection.execute(
            "SELECT action, actor, detail FROM control.audit_log WHERE organization = %s", (tenant.organization,)
        ).fetchall()


def everything_in_kafka(system: System) -> bytes:
    """Keys, values and headers of every record there is."""
    kafka = system.settings.kafka
    consumer = Consumer({**client_config(kafka, "grep"), "group.id": "grep", "enable.auto.commit": False, "enable.partition.eof": True})
    names = [topic.name for topic in declared(system.settings.delivery.delays_s)]
    admin = topics.admin(kafka)
    places = [TopicPartition(name, number, 0) for name in names for number in admin.list_topics(name, 10).topics[name].partitions]
    consumer.assign(places)
    found: list[bytes] = []
    ended = 0
    try:
        while ended < len(places):
            message = consumer.poll(10)
            assert message is not None, "the log did not come to its end"
            if message.error():
                ended += 1
                continue
            found += [message.key() or b"", message.value() or b"", repr(message.headers()).encode()]
    finally:
        consumer.close()
    assert len(found) > 10
    return b"\n".join(found)


def everything_in_postgres(system: System) -> bytes:
    """Every row of every table, as text and with bytes as they are."""
    found: list[bytes] = []
    with connect(system.settings.postgres, application="test") as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema IN ('control', 'folds') AND table_type = 'BASE TABLE'"
        ).fetchall()
        for schema, table in tables:
            for row in connection.execute(f'SELECT * FROM "{schema}"."{table}"'):
                found += [one if isinstance(one, bytes) else str(one).encode() for one in row]
    return b"\n".join(found)


def canaries(data: bytes) -> list[str]:
    return [
        canary
        for canary in (SUBJECT, SECRET, ANSWER.decode())
        for form in (canary.encode(), *(base64.b64encode(b"x" * shift + canary.encode())[4:-4] for shift in range(3)))
        if form in data
    ]


def test_an_encrypted_event_is_read_and_delivered_byte_for_byte_and_after_its_erasure_nothing_can_be_read_anywhere(
    system: System, tenant: Tenant, client: httpx.Client, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.bodies["/webhooks"], receiver.answers["/webhooks"] = ANSWER, lambda *_: 200
    endpoint, receiver.secrets["/webhooks"] = make_endpoint(system.settings, tenant.organization, receiver.url())
    first, others = post(client, "1"), post(client, "2", subject="somebody else")
    unnamed = post(client, "3", subject=None)
    for event_id in (first, others, unnamed):
        until(lambda event_id=event_id: is_over(client, event_id), WAIT_S, "the delivery", 0.2)  # type: ignore[misc]

    # Those who may read, read what was sent.
    assert post(client, "1", status=409) == first
    inbox = client.get("/inbox")
    assert inbox.content.count(PAYLOAD) == 3
    item = next(one for one in inbox.json()["events"] if one["id"] == first)
    assert (item["subject"], item["erased"], item["status"]) == (SUBJECT, False, "delivered")
    known = state(client, first)
    assert (known["subject"], known["payload_bytes"], known["erased"]) == (SUBJECT, len(PAYLOAD), False)
    received = next(one for one in receiver.of() if one.headers["webhook-id"] == first)
    assert received.verified
    assert b'"data":' + PAYLOAD in received.body
    shown = client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]
    assert {base64.b64decode(one["response_base64"]) for one in shown} == {ANSWER}

    # It is in clear nowhere already; what the first line of defence is worth is seen by what is in clear on purpose.
    assert canaries(everything_in_kafka(system) + everything_in_postgres(system)) == []
    assert canaries(PAYLOAD + base64.b64encode(ANSWER)) == [SECRET, ANSWER.decode()]

    with connect(system.settings.postgres, application="test") as connection:
        dumped = connection.execute("SELECT * FROM control.data_keys WHERE organization = %s", (tenant.organization,)).fetchall()
    export = tmp_path / "audit"
    command(system, "audit", "export", tenant.organization, str(export))

    assert command(system, "erase", "subject", tenant.organization, SUBJECT, "--dry-run")["erased"] is False
    assert state(client, first)["erased"] is False
    told = command(system, "erase", "subject", tenant.organization, SUBJECT, "--yes")
    assert (told["data_keys"], told["erased"], told["effective"]) == (1, True, "now")

    events = {one["id"]: one for one in client.get("/inbox").json()["events"]}
    assert (events[first]["erased"], events[first]["payload"], events[first]["subject"]) == (True, None, None)
    assert (events[others]["erased"], events[others]["subject"]) == (False, "somebody else")
    assert (state(client, first)["erased"], state(client, first)["payload_sha256"]) == (True, None)
    shown = client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]
    assert next(one for one in shown if one["event_id"] == first)["response_base64"] is None
    explained = command(system, "explain", first, "--organization", tenant.organization)
    assert (explained["event"]["erased"], explained["event"]["subject"]) == (True, None)

    # Delivered again, it is posted to nobody, and the endpoint is not to blame.
    before = len(receiver.of())
    asked = client.post(f"/endpoints/{endpoint}/retry", json={"event_id": first})
    assert asked.status_code == 202, asked.text

    def ended() -> list[dict[str, Any]]:
        found = client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]
        return [one for one in found if one["round"] == asked.json()["round"]]

    until(lambda: bool(ended()), WAIT_S, "the erased event's round", 0.2)
    assert [(one["error"], one["next"], one["dead_reason"]) for one in ended()] == [("erased", "dead", "erased")]
    assert len(receiver.of()) == before
    assert client.get(f"/endpoints/{endpoint}").json()["enabled"] is True

    # Nothing that was kept had to change for it.
    assert command(system, "audit", "verify", str(export))
    ran = subprocess.run(
        argv("rebuild", "all", "--verify-only", "--json"), env=system.environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout, ran.stderr)

    # An older dump does not bring the key back, and it is the log that says so.
    with connect(system.settings.postgres, application="test") as connection:
        connection.autocommit = True
        for row in dumped:
            connection.execute("INSERT INTO control.data_keys VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", row)
        epoch.tell_caches(system.settings.redis, epoch.raise_version(connection))
    assert state(client, first)["erased"] is False
    assert reapply(system.settings, lambda *_: None) == 1
    assert state(client, first)["erased"] is True
    assert reapply(system.settings, lambda *_: None) == 0

    # Who comes again after an erasure begins anew. The key of the erased event is still taken, by what nobody can compare any more.
    again = post(client, "4")
    until(lambda: state(client, again).get("subject") == SUBJECT, WAIT_S, "the new event", 0.1)
    assert post(client, "1", status=422) == first

    assert command(system, "erase", "organization", tenant.organization, "--yes")["data_keys"] == 3
    assert all(one["erased"] for one in client.get("/inbox").json()["events"] if not one["type"].startswith("triggers."))


@pytest.mark.parametrize("place", ["erasure.after_log", "erasure.after_commit"])
def test_an_erasure_that_was_killed_on_its_way_is_ended_by_the_log_and_audited(
    place: str, system: System, tenant: Tenant, client: httpx.Client, tmp_path: Path
) -> None:
    event_id = post(client, "1")
    until(lambda: bool(state(client, event_id)), WAIT_S, "the event", 0.1)
    armed = tmp_path / "crash"
    armed.write_text(place)
    arguments = argv("erase", "subject", tenant.organization, SUBJECT, "--yes")
    killed = subprocess.run(arguments, env={**system.environment, "TRIGGERS_CRASH_FILE": str(armed)}, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    # After the log was told, its fold ends it; after the commit nobody told the caches, which look for themselves.
    until(lambda: bool(state(client, event_id)["erased"]), 20, "the erasure", 0.2)
    assert command(system, "erase", "subject", tenant.organization, SUBJECT, "--yes")["data_keys"] == 0
    entries = audited(system, tenant)
    assert [one for one in entries if one[0] == "data.erased"], entries
    assert SUBJECT not in str(entries)
