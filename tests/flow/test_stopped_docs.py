"""Runbooks for which workers have to be stopped: their commands are run on a system that worked a moment ago."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from runtime.topics import admin
from schemas.topics import DEDUP_APP, DELIVERY_GROUP, PROJECT_APP
from tests import runbooks
from tests.backends import start_servers
from tests.conftest import TEST_ENVIRONMENT
from triggers.devstack.ports import free_ports
from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, settings_of, until


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[dict[str, str]]:
    """The environment of a system of this file's own that has taken, delivered and acknowledged one event, then ended."""
    folder = tmp_path_factory.mktemp("stopped")
    with start_servers(folder / "stack") as servers, Receiver() as receiver:
        environment = {
            **servers.environment, **TEST_ENVIRONMENT, "TRIGGERS_API__PORT": str(free_ports(1)[0]), "PATH": "/usr/bin:/bin",
            "TRIGGERS_PROCESSOR__DATA_DIR": str(folder / "processors"),
        }  # fmt: skip
        system = System(environment, folder, announce=print)
        system.prepare()
        system.start()
        try:
            system.wait_ready()
            tenant = make_tenant(system.settings, "stopped")
            endpoint, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
            with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:
                event = client.post("/events", json={"type": "order.paid", "payload": {}, "idempotency_key": "order-17"}).json()["id"]
                until(lambda: bool(client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]), 60, "the attempt", 0.2)
                assert client.post("/inbox/ack", json={"ids": [event]}).json()["acknowledged"] == 1
        finally:
            system.stop()
        client_of_kafka = admin(system.settings.kafka)
        for group in (DEDUP_APP, PROJECT_APP, DELIVERY_GROUP):
            until(lambda group=group: not members(client_of_kafka, group), 60, f"the workers of {group} leaving", 0.5)  # type: ignore[misc]
        yield {**system.environment, "URL": system.url, "ORG": tenant.organization, "ENDPOINT": endpoint}


def members(client: AdminClient, group: str) -> int:
    return len(client.describe_consumer_groups([group], request_timeout=20)[group].result(20).members)


@pytest.fixture
def prepared(page: str, stopped: dict[str, str]) -> dict[str, str]:
    """What the page is about has happened."""
    if page == "lost-offsets.md":
        client = admin(settings_of(stopped).kafka)
        client.delete_consumer_groups([DELIVERY_GROUP])[DELIVERY_GROUP].result(30)
    return stopped


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", runbooks.STOPPED)
def test_the_commands_of_a_runbook_print_what_it_says_while_nothing_works(page: str, prepared: dict[str, str], tmp_path: Path) -> None:
    runbooks.run_page(page, prepared, tmp_path)
