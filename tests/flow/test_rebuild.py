"""The rebuild beside a whole running system: its own worker folds, its API reads and acknowledges, before, during and after the swap."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.rebuild.rig import fetch, sums
from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, argv, until

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "rebuild.md"


def run(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(*arguments), env=system.environment, capture_output=True, text=True, check=False, timeout=120)


def document(finished: subprocess.CompletedProcess[str]) -> Any:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


class Load(threading.Thread):
    """Posts events, each third one twice, and acknowledges every other; a problem ends it and is told by `stop`."""

    def __init__(self, system: System, key: str) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=system.url, headers={"X-API-Key": key}, timeout=30)
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self.posted: list[str] = []
        self.acked: set[str] = set()

    def run(self) -> None:
        try:
            with self._client:
                while not self._end.is_set():
                    self._round(len(self.posted))
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self._failure = error

    def _round(self, number: int) -> None:
        event = {"type": "order.paid", "payload": {"order": number}, "idempotency_key": f"rebuild-{number}"}
        answer = self._client.post("/events", json=event)
        assert answer.status_code == 201, answer.text
        event_id = answer.json()["id"]
        if number % 3 == 0:
            assert self._client.post("/events", json=event).status_code == 409
        if number % 2 == 0:
            until(lambda: bool(self._client.get(f"/events/{event_id}").json()["status"] == "accepted"), 60, "the event")
            answer = self._client.post("/inbox/ack", json={"ids": [event_id]})
            assert answer.json()["acknowledged"] == 1, answer.text
            self.acked.add(event_id)
        self.posted.append(event_id)

    def more(self, count: int) -> None:
        target = len(self.posted) + count
        until(lambda: len(self.posted) >= target or self._failure is not None, 120, f"{count} more events")

    def stop(self) -> None:
        self._end.set()
        self.join(60)
        if self._failure is not None:
            raise self._failure


def failing_first(received: Received, before: int) -> int:
    return 500 if before == 0 else 204


@pytest.mark.verify
@pytest.mark.timeout(300)
def test_a_running_system_goes_on_through_a_rebuild_and_its_tables_stay_the_same(system: System, receiver: Receiver) -> None:
    tenant = make_tenant(system.settings, "rebuilt")
    receiver.answers["/failing"] = failing_first
    make_endpoint(system.settings, tenant.organization, receiver.url("/failing"))
    load = Load(system, tenant.key)
    load.start()
    load.more(20)
    for target in ("all", "inbox"):
        done = document(run(system, "rebuild", target, "--json"))
        assert (done["equal"], done["swapped"]) == (True, True), done
        load.more(10)
    load.stop()
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=30) as client:

        def inbox(status: str) -> list[str]:
            answer = client.get("/inbox", params={"status": status, "limit": 1000})
            assert answer.status_code == 200, answer.text
            return [event["id"] for event in answer.json()["events"]]

        until(lambda: inbox("all") == load.posted, 60, "every event reaching the inbox once, in order", 0.2)
        assert set(inbox("acked")) == load.acked
    until_quiet(system)
    before = sums(system.settings)
    assert document(run(system, "rebuild", "all", "--json"))["swapped"]
    assert sums(system.settings) == before


def until_quiet(system: System) -> None:
    """Until deliveries have ended and the worker has folded what they wrote."""
    last: list[dict[str, str]] = [{}]
    ended = "EXISTS (SELECT FROM attempts a WHERE a.event_id = p.event_id AND a.endpoint_id = p.endpoint_id AND a.next_kind IS NULL)"
    mine = "p.organization = (SELECT max(organization) FROM plans)"

    def unchanged() -> bool:
        now = sums(system.settings)
        same, last[0] = now == last[0], now
        return same and fetch(system.settings, f"SELECT count(*) FROM plans p WHERE NOT {ended} AND {mine}") == [(0,)]

    until(unchanged, 60, "the tables coming to rest", 1.5)
