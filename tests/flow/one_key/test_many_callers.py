"""One key, a hundred callers, two API processes: one event, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.one_key.callers import Callers, became, in_the_log, inbox, settled
from tests.flow.one_key.conftest import started
from triggers.devstack.stack import Stack
from triggers.provision import Tenant
from triggers.system import System, until

CALLERS = 100
EVENT: dict[str, Any] = {"type": "order.paid", "payload": {"order": 17}, "idempotency_key": "order-17-paid"}


def test_a_hundred_at_once_over_two_processes_make_one_event(system: System, urls: list[str], tenant: Tenant, client: httpx.Client) -> None:
    told = asyncio.run(Callers(urls, tenant.key, EVENT).all(CALLERS, CALLERS))
    assert sorted(one.status for one in told) == [201] + [409] * (CALLERS - 1)
    assert all(one.document["idempotency_window_s"] == 86_400 for one in told)
    named = {one.event_id for one in told}
    assert len(named) == 1
    assert set().union(*(one.in_flight for one in told)) <= named
    assert [record.id for record in settled(system, client, tenant)] == list(named)
    assert [row["id"] for row in inbox(client)] == list(named)


def test_redis_killed_in_the_middle_leaves_one_row_and_every_other_201_finds_its_original(
    system: System, urls: list[str], tenant: Tenant, client: httpx.Client, stack: Stack
) -> None:
    callers = Callers(urls, tenant.key, EVENT)

    async def race() -> tuple[list[Any], int]:
        running = asyncio.ensure_future(callers.all(3 * CALLERS, 20))
        async with asyncio.timeout(60):
            while callers.answered < CALLERS // 2:
                await asyncio.sleep(0.001)
        answered = callers.answered
        await asyncio.to_thread(stack.redis.kill)
        return await running, answered

    try:
        told, answered = asyncio.run(race())
    finally:
        stack.redis.bring_up()
    assert 0 < answered < 3 * CALLERS, "the fault came in the middle"
    created = [one.event_id for one in told if one.status == 201]
    assert len(created) > 1, "without Redis there is nobody to say 409"
    records = settled(system, client, tenant)
    rows = inbox(client)
    assert len(rows) == 1
    winner = rows[0]["id"]
    assert winner in created
    assert {record.id for record in records} == set(created)
    for event_id in {one.event_id for one in told}:
        found = became(client, event_id)
        expected = ("accepted", None) if event_id == winner else ("duplicate", winner)
        assert (found["status"], found.get("original_id")) == expected
    # Redis is back and knows nothing: whoever asks now still comes to the same event.
    late = asyncio.run(callers.all(1, 1))[0]
    assert became(client, late.event_id).get("original_id", winner) == winner
    settled(system, client, tenant)
    assert [row["id"] for row in inbox(client)] == [winner]


@pytest.mark.parametrize(
    ("place", "status", "records_max"),
    [
        ("api.after_reserve", 201, 1), ("api.after_append", 201, 2), ("api.after_confirm", 409, 1),
        ("batch.after_reserve", 201, 1), ("batch.after_append", 201, 2), ("batch.after_confirm", 409, 1),
    ],
)  # fmt: skip
def test_an_api_killed_on_the_way_leaves_one_id_for_whoever_asks_again(
    place: str, status: int, records_max: int, system: System, urls: list[str], tenant: Tenant, client: httpx.Client, tmp_path: Path
) -> None:
    armed = tmp_path / "crash"
    armed.write_text(place)
    with started(system, f"doomed-{place}", extra={"TRIGGERS_CRASH_FILE": str(armed)}) as (doomed,):
        path, body = ("events/batch", [EVENT]) if place.startswith("batch") else ("events", EVENT)
        # A caller of one event is answered before Redis is told of it.
        with nullcontext() if place == "api.after_confirm" else pytest.raises(httpx.TransportError):
            answer = httpx.post(f"{doomed.url}/{path}", json=body, headers={"X-API-Key": tenant.key}, timeout=15)
            assert answer.status_code == 201
        until(lambda: not armed.exists(), 15, "its death where it was told to die")
        appended = [record.id for record in in_the_log(system.settings, tenant)]
        assert len(appended) == (0 if place.endswith("after_reserve") else 1)
        told = asyncio.run(Callers(urls, tenant.key, EVENT).all(20, 20))
    named = {one.event_id for one in told}
    assert len(named) == 1
    assert set(appended) <= named
    assert sorted(one.status for one in told)[0] == status
    assert [one.status for one in told].count(201) == (1 if status == 201 else 0)
    in_flight = set().union(*(one.in_flight for one in told))
    assert in_flight <= named, "the id that was reserved is the one that is appended"
    assert bool(in_flight) == (not place.endswith("after_confirm"))
    records = settled(system, client, tenant)
    assert {record.id for record in records} == named
    assert len(records) <= records_max
    assert [row["id"] for row in inbox(client)] == list(named)
