"""Retention on the running system: what it takes, what a reader is told who missed it, and that a rebuild agrees."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from msgspec import Raw
from typer.testing import CliRunner

from runtime.clock import SYSTEM
from runtime.postgres import connect
from schemas import codec, ids, keys
from schemas.events import Ingested
from schemas.ids import EventId
from schemas.topics import EVENTS_INGESTED
from tests.flow.topics import write_records
from triggers.cli import app
from triggers.provision import Tenant, make_tenant
from triggers.system import System, until

_DAY_MS = 86_400_000
OLD = 5


@pytest.fixture(scope="module")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "retention")


def old_events(system: System, tenant: Tenant) -> list[EventId]:
    """Events whose ids are forty days old, in the log as the API would have left them."""
    organization = tenant.organization
    key = keys.record_key(organization)
    partition = keys.partition_of(key, system.settings.kafka.partitions)
    made = []
    for number in range(OLD):
        received_ms = SYSTEM.now_ms() - 40 * _DAY_MS + number
        event = Ingested(
            v=1, id=ids.event_id(received_ms, bytes(10)), organization=organization, mode="live", type="old", received_at_ms=received_ms,
            fingerprint=keys.fingerprint("old", None, b"1"), payload=Raw(b"1"),
        )  # fmt: skip
        made.append(event)
    write_records(system.settings, EVENTS_INGESTED, [(key, codec.encode(event), partition) for event in made])
    return [event.id for event in made]


def test_what_retention_took_is_gone_everywhere_and_a_reader_who_missed_it_is_told(system: System, tenant: Tenant) -> None:
    def run(*arguments: str, more: dict[str, str] | None = None) -> list[dict[str, Any]]:
        ran = CliRunner().invoke(app, [*arguments, "--json"], env={**system.environment, **(more or {})})
        assert ran.exit_code == 0, (ran.stdout, ran.stderr, ran.exception)
        found = json.loads(ran.stdout)
        return found if isinstance(found, list) else [found]

    organization = tenant.organization
    old = old_events(system, tenant)
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:

        def page(**parameters: str) -> dict[str, Any]:
            found: dict[str, Any] = client.get("/inbox", params=parameters).json()
            return found

        until(lambda: len(page()["events"]) == OLD, 60, "the old events in the inbox", 0.2)
        new = client.post("/events", json={"type": "new", "payload": 2}).json()["id"]
        until(lambda: len(page()["events"]) == OLD + 1, 60, "the new event in the inbox", 0.2)
        first = page(limit="2")
        last_old = page()["events"][OLD - 1]["position"]
        assert first["truncated"] is None
        assert client.post("/inbox/ack", json={"ids": old[:1]}).json()["acknowledged"] == 1

        assert run("retention", "apply", "--organization", organization) == []
        run("retention", "set", organization, "--days", "30")
        (counted,) = run("retention", "apply", "--organization", organization, "--dry-run")
        assert (counted["mode"], counted["events"], len(page(status="all")["events"])) == ("live", OLD, OLD + 1)
        (taken,) = run("retention", "apply", "--organization", organization, more={"TRIGGERS_RETENTION__STEP_EVENTS_MAX": "2"})
        assert (taken["events"], taken["kept_from"]) == (OLD, counted["kept_from"])
        assert run("retention", "apply", "--organization", organization) == []
        (shown,) = run("retention", "show", "--organization", organization)
        assert (shown["days"], shown["live_kept_from"], shown["test_kept_from"]) == (30, taken["kept_from"], None)

        missed = page(cursor=first["next_cursor"])
        begin = {**first["events"][-1]["position"], "offset": first["events"][-1]["position"]["offset"] + 1}
        assert [event["id"] for event in missed["events"]] == [new]
        assert missed["truncated"] == {"first": begin, "last": last_old}
        assert page(cursor=missed["next_cursor"])["truncated"] is None
        from_the_oldest = page()
        assert ([event["id"] for event in from_the_oldest["events"]], from_the_oldest["truncated"]) == ([new], None)

        gone = client.get(f"/events/{old[0]}")
        assert (gone.status_code, gone.json()["kept_from"]) == (404, taken["kept_from"])
        assert "retention" in gone.json()["detail"]
        assert client.post("/inbox/ack", json={"ids": old[1:2]}).json()["results"] == [{"id": old[1], "status": "unknown"}]
    (told,) = run("explain", old[0], "--organization", organization, "--within", "1000h")
    assert told["status"] == "accepted"
    assert told["retention"] == {"kept_from": taken["kept_from"]}
    with connect(system.settings.postgres, application="test") as connection:
        rows = connection.execute(
            "SELECT action FROM control.audit_log WHERE organization = %s ORDER BY id", (organization,)
        ).fetchall()  # fmt: skip
    assert [row[0] for row in rows if row[0] in ("organization.updated", "retention.applied")] == [
        "organization.updated",
        "retention.applied",
    ]
    for target in ("all", "inbox"):
        assert run("rebuild", target, "--verify-only")[0]["equal"]


def test_an_empty_inbox_says_once_what_was_missed(system: System) -> None:
    tenant = make_tenant(system.settings, "retention to the last")
    old_events(system, tenant)
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:
        until(lambda: len(client.get("/inbox").json()["events"]) == OLD, 60, "the old events in the inbox", 0.2)
        cursor = client.get("/inbox", params={"limit": 1}).json()["next_cursor"]
        ran = CliRunner().invoke(
            app, ["retention", "apply", "--organization", tenant.organization],
            env={**system.environment, "TRIGGERS_RETENTION__FREE_DAYS": "30", "TRIGGERS_RETENTION__PRO_DAYS": "30",
                 "TRIGGERS_RETENTION__STARTER_DAYS": "30", "TRIGGERS_RETENTION__ENTERPRISE_DAYS": "30"},
        )  # fmt: skip
        assert ran.exit_code == 0, (ran.stdout, ran.stderr)
        told = client.get("/inbox", params={"cursor": cursor}).json()
        assert (told["events"], told["truncated"] is None) == ([], False)
        again = client.get("/inbox", params={"cursor": told["next_cursor"]}).json()
        assert (again["events"], again["truncated"], again["next_cursor"]) == ([], None, told["next_cursor"])
