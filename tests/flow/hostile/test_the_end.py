"""How the API stops, and what all of these callers have cost it. Runs after the others of its folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.flow.hostile.apis import OwnApi, listens
from tests.flow.raw import (
    EVENT_BODY,
    LENGTH,
    RawConnection,
    assert_problem,
    event_bytes,
    raw_event,
    request_bytes,
    rss_bytes,
    talk,
)
from triggers.provision import Tenant, make_tenant
from triggers.system import System, until

RSS_GROWTH_BYTES_MAX = 50 * 1024 * 1024


def test_draining_says_so_answers_what_is_under_way_and_ends_with_zero(system: System, tenant: Tenant, tmp_path: Path) -> None:
    fresh = make_tenant(system.settings, "drains")
    with OwnApi(system, tmp_path, {"TRIGGERS_API__DRAIN_S": "2"}) as (process, settings), ExitStack() as held:
        polling, kept, late = (held.enter_context(RawConnection(settings, timeout_s=15)) for _ in range(3))
        polling.send(request_bytes("GET", "/inbox?wait=4", [("X-API-Key", fresh.key)]))
        kept.send(request_bytes("GET", "/health"))
        assert kept.answer().header("Connection") is None
        late.send(raw_event(tenant.key, LENGTH, body=EVENT_BODY[:10]))
        process.terminate()
        ready = f"http://127.0.0.1:{settings.api.port}/health/ready"
        until(lambda: httpx.get(ready).json()["status"] == "draining", 2, "readiness saying so")
        assert httpx.get(ready).status_code == 503
        kept.send(event_bytes(tenant.key))
        answer = kept.answer()
        assert (answer.status, answer.closed) == (201, True)
        assert talk(settings, event_bytes(tenant.key)).status == 201
        until(lambda: not listens(settings), 5, "the port being closed")
        assert process.poll() is None
        late.send(EVENT_BODY[10:])
        answer = late.answer()
        assert (answer.status, answer.closed) == (201, True)
        answer = polling.answer()
        assert (answer.status, answer.closed, answer.document["events"]) == (200, True, [])
        assert process.wait(10) == 0


def test_what_does_not_end_in_time_is_answered_503_and_the_process_ends_with_zero(system: System, tenant: Tenant, tmp_path: Path) -> None:
    fresh = make_tenant(system.settings, "does not end")
    with OwnApi(system, tmp_path, {"TRIGGERS_API__SHUTDOWN_TIMEOUT_S": "1"}) as (process, settings), ExitStack() as held:
        polling, idle, half = (held.enter_context(RawConnection(settings, timeout_s=15)) for _ in range(3))
        polling.send(request_bytes("GET", "/inbox?wait=25", [("X-API-Key", fresh.key)]))
        half.send(b"POST /events HTTP/1.1\r\n")
        until(lambda: talk(settings, request_bytes("GET", "/health")).status == 200, 5, "the requests having come")
        began_s = time.monotonic()
        process.terminate()
        assert idle.ended(5)
        assert half.ended(5)
        answer = polling.answer()
        assert_problem(answer, 503, "unavailable", closes=True)
        assert process.wait(10) == 0
        assert time.monotonic() - began_s < 6


def test_the_whole_catalogue_costs_little_memory(system: System, rss_before: int) -> None:
    grown = rss_bytes(system) - rss_before
    print(f"resident memory of the API grew by {grown / 1e6:.1f} MB")
    assert grown < RSS_GROWTH_BYTES_MAX
    assert system.supervisor.restart_count("api") == 0
