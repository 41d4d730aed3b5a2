"""The commands of the runbooks in docs/operating/ are run on the running system, and what they print is what stands below them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

DOCS = Path(__file__).parents[2] / "docs" / "operating"
#: A command and what it prints. `…` in a line stands for anything, on a line of its own for any lines. `status=` in the fence: its exit.
_STEP = re.compile(r"^```sh\n(?P<command>.*?)^```\n```text(?: status=(?P<status>\d+))?\n(?P<output>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^```sh$", re.MULTILINE)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if _COMMAND.search(path.read_text()))


def pattern_of(output: str) -> re.Pattern[str]:
    parts = [r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in output.splitlines()]
    return re.compile("".join(parts))


@pytest.fixture(scope="module")
def variables(system: System) -> Iterator[Mapping[str, str]]:
    """What the pages speak of: an acknowledged event with one delivery done and one that is tried again in an hour."""
    tenant = make_tenant(system.settings, "runbooks")
    with Receiver() as receiver, httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=20) as client:
        receiver.answers["/broken"] = lambda _received, _before: 500
        # In the order in which they are shown.
        good, _ = make_endpoint(system.settings, tenant.organization, receiver.url())
        make_endpoint(system.settings, tenant.organization, receiver.url("/broken"), schedule="custom", schedule_s=[3_600])
        raw = b'{"type":"order.paid","payload":{"order":17,"amount":20.5},"subject":"order/17","idempotency_key":"order-17"}'
        event_id = client.post("/events", content=raw, headers={"Content-Type": "application/json"}).json()["id"]

        def attempted() -> bool:
            found = client.get(f"/events/{event_id}").json()
            return found["status"] == "accepted" and [len(one["attempts"]) for one in found["deliveries"]] == [1, 1]

        until(attempted, 60, "both attempts", 0.2)
        assert client.post("/inbox/ack", json={"ids": [event_id]}).json()["acknowledged"] == 1
        yield {"EVENT": event_id, "ORG": tenant.organization, "ENDPOINT": good}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_runbook_print_what_it_says(page: str, system: System, variables: Mapping[str, str]) -> None:
    text = (DOCS / page).read_text()
    steps = list(_STEP.finditer(text))
    assert len(steps) == len(_COMMAND.findall(text)), "every command stands above what it prints"
    limits = {"TRIGGERS_OPERATING__CHECK_TIMEOUT_S": "50"}  # on a crowded machine
    environment = {**system.environment, **limits, **variables, "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin"}
    for step in steps:
        ran = subprocess.run(["/bin/bash", "-c", step["command"]], env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == int(step["status"] or 0), (step["command"], ran.stdout, ran.stderr)
        assert pattern_of(step["output"]).fullmatch(ran.stdout + ran.stderr), (step["command"], ran.stdout, ran.stderr)
