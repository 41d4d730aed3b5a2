"""What may be asked of replays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.flow.replays.asking import start, steer
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System

PAGE = Path(__file__).parents[3] / "docs" / "operating" / "replay.md"


def test_what_cannot_be_replayed_is_a_problem_that_says_why(
    system: System, client: httpx.Client, desk: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    fifo, _ = make_endpoint(system.settings, tenant.organization, receiver.url("/fifo"), fifo=True)
    foreign = make_tenant(system.settings, "foreign").organization
    mine = {"organization": tenant.organization}
    refused: list[tuple[int, dict[str, Any]]] = [
        (404, {"organization": foreign, "endpoint_id": endpoint}),
        (404, {"organization": "org_00000000-0000-7000-8000-000000000000"}),
        (404, {**mine, "endpoint_id": endpoint, "mode": "test"}),
        (409, {"organization": foreign}),
        (409, {**mine, "endpoint_id": fifo}),
        (422, {**mine, "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        (422, {**mine, "rate_per_s": 100_000}),
        (422, {**mine, "until_position": 1 << 60}),
        (422, {**mine, "event_types": ["order*"]}),
        (422, {**mine, "unknown": 1}),
    ]
    for status, body in refused:
        assert start(desk, status, **body, dry_run=True)["detail"]
    assert start(desk, 200, **mine, endpoint_id=fifo, out_of_order=True, dry_run=True)["events"] == 0
    assert client.post(f"/endpoints/{endpoint}/disable").status_code == 200
    assert "disabled" in start(desk, 409, **mine, endpoint_id=endpoint)["detail"]
    unknown = "rnd_00000000-0000-7000-8000-000000000000"
    assert desk.get(f"/replays/{unknown}").status_code == 404
    steer(desk, unknown, 404, state="paused")
    steer(desk, unknown, 422)
    assert desk.get("/replays", params={"organization": tenant.organization}).json() == {"replays": [], "next_before": None}
    assert client.get("/operator/replays").status_code == 403
