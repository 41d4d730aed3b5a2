"""RELIABILITY F5: the API's producer fails for good, and the API gets over it by itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flow.hostile.apis import answers
from triggers.devstack.ports import free_ports
from triggers.provision import make_tenant
from triggers.system import System, settings_of, until

NAME = "failing-api"
RECOVERED_WITHIN_S = 5.0


@pytest.fixture
def url(system: System, tmp_path: Path) -> Iterator[str]:
    """A supervised API process whose producer fails on SIGUSR1."""
    environment = {
        **system.environment,
        "TRIGGERS_API__PORT": str(free_ports(1)[0]),
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}",
    }
    api = settings_of(environment).api
    system.supervisor.start(NAME, [sys.executable, "-m", "tests.flow.failing_api"], env=environment, log_path=tmp_path / "api.log")
    try:
        until(lambda: answers(f"http://{api.host}:{api.port}/health/ready"), 60, "the API being ready", 0.2)
        yield f"http://{api.host}:{api.port}"
    finally:
        system.supervisor.stop(NAME)


def test_a_producer_that_failed_for_good_is_replaced_and_meanwhile_nothing_is_appended(system: System, url: str) -> None:
    tenant = make_tenant(system.settings, "producer failure")
    created: list[str] = []
    refused: list[dict[str, object]] = []
    readiness: list[str] = []
    with httpx.Client(base_url=url, headers={"X-API-Key": tenant.key}, timeout=15) as client:

        def post() -> bool:
            number = len(created) + len(refused)
            answer = client.post("/events", json={"type": "a.b", "payload": number, "idempotency_key": f"k{number}"})
            readiness.append(client.get("/health/ready").json()["dependencies"]["kafka"])
            if answer.status_code == 201:
                created.append(answer.json()["id"])
                return True
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            refused.append(answer.json())
            return False

        assert post()
        system.supervisor.kill(NAME, signal.SIGUSR1)
        until(lambda: not post(), RECOVERED_WITHIN_S, "an event being refused")
        failed_s = time.monotonic()
        until(post, 30, "an event being appended again")
        assert time.monotonic() - failed_s < RECOVERED_WITHIN_S
        assert {answer["outcome"] for answer in refused} == {"not_appended"}
        assert "rebuilding" in readiness
        until(lambda: client.get("/health/ready").status_code == 200, RECOVERED_WITHIN_S, "the API being ready again", 0.1)
        assert system.supervisor.restart_count(NAME) == 0
        until(lambda: len(_inbox(client)) >= len(created), 30, "the events reaching the inbox", 0.1)
        assert _inbox(client) == created


def _inbox(client: httpx.Client) -> list[str]:
    return [event["id"] for event in client.get("/inbox", params={"status": "all", "limit": 1000}).json()["events"]]
