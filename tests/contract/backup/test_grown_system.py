"""A system whose backup was rewritten for more partitions: readers, deliveries and dedup go on, in another topic generation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from runtime.settings import Settings
from runtime.topics import admin, generation
from tests.contract.backup.rig import quiet
from tests.contract.backup.test_whole_system import (
    SCHEDULE,
    WAIT_S,
    at_rest,
    client_of,
    failing_first,
    ids,
    inbox,
    of,
    post,
    run,
    running,
)
from tests.contract.rebuild.rig import fetch
from triggers.backup.check import check
from triggers.grow.rewrite import rewrite
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

PARTITIONS = 7
EVENTS = 20

pytestmark = [pytest.mark.verify, pytest.mark.timeout(600)]


class Begun(NamedTuple):
    """What an organization had before. `cursor`: behind its eighth event. `late`: an event whose retry waits."""

    posted: list[str]
    cursor: str
    late: str


def begin(system: System, receiver: Receiver, tenant: Tenant, number: int) -> Begun:
    with client_of(system, tenant) as client:
        posted = [post(client, n) for n in range(EVENTS)]
        until(lambda: ids(inbox(client, limit=1000)) == posted, WAIT_S, "the inbox")
        assert client.post("/inbox/ack", json={"ids": posted[:5]}).json()["acknowledged"] == 5
        cursor = inbox(client, limit=8)["next_cursor"]
        until(lambda: len(receiver.of(f"/fifo{number}")) == EVENTS, WAIT_S, "deliveries")
        return Begun(posted, cursor, post(client, EVENTS, "order.late"))


def go_on(grown: System, receiver: Receiver, tenant: Tenant, number: int, before: Begun) -> None:
    with client_of(grown, tenant) as client:
        fresh = post(client, EVENTS + 1)
        wanted = [*before.posted[8:], before.late, fresh]
        until(lambda: ids(inbox(client, limit=1000, cursor=before.cursor)) == wanted, WAIT_S, "the new event")
        assert ids(inbox(client, limit=1000, status="acked")) == before.posted[:5]
        again = post(client, 3)  # Redis is empty, so dedup has to know it
        until(lambda: client.get(f"/events/{again}").json()["status"] != "pending", WAIT_S, "dedup")
        found = client.get(f"/events/{again}").json()
        assert (found["status"], found["original_id"]) == ("duplicate", before.posted[3]), found
        until(lambda: len(receiver.of(f"/fifo{number}")) == EVENTS + 1, WAIT_S, "the new event's delivery")
        assert [one.headers["webhook-id"] for one in receiver.of(f"/fifo{number}")] == [*before.posted, fresh]


def test_a_system_with_more_partitions_goes_on_where_the_one_with_fewer_stopped(
    environments: tuple[dict[str, str], dict[str, str]], empty_source: Settings, target: Settings, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        receiver.answers["/later"] = failing_first()
        with running(of(environments[0], empty_source), tmp_path / "source") as system:
            tenants = [make_tenant(system.settings, f"grown {number}") for number in range(4)]
            for number, tenant in enumerate(tenants):
                make_endpoint(system.settings, tenant.organization, receiver.url(f"/fifo{number}"), event_types=["order.paid"], fifo=True)
                make_endpoint(system.settings, tenant.organization, receiver.url("/later"), event_types=["order.late"])
            begun = [begin(system, receiver, tenant, number) for number, tenant in enumerate(tenants)]
            until(lambda: len(receiver.of("/later")) == len(tenants), WAIT_S, "the first attempts")
            at_rest(system.settings, len(tenants) * (EVENTS + 1))
            rows = fetch(system.settings, "SELECT * FROM inbox ORDER BY organization, mode, generation, position")
        stopped = System({**of(environments[0], empty_source), **SCHEDULE}, tmp_path)
        run(stopped, "backup", tmp_path / "before", "--json")
        (tmp_path / "after").mkdir()
        digest = rewrite(tmp_path / "before", tmp_path / "after", PARTITIONS)
        assert check(tmp_path / "after", quiet).digest == digest

        environment = {**of(environments[1], target), **SCHEDULE, "TRIGGERS_KAFKA__PARTITIONS": str(PARTITIONS)}
        restoring = System(environment, tmp_path)
        assert run(restoring, "restore", tmp_path / "after", "--json")["partitions"] == PARTITIONS
        client_here = admin(restoring.settings.kafka)
        assert generation(client_here) == 2
        assert fetch(restoring.settings, "SELECT * FROM inbox ORDER BY organization, mode, generation, position") == rows
        with running(environment, tmp_path / "target") as grown:
            for number, (tenant, before) in enumerate(zip(tenants, begun, strict=True)):
                go_on(grown, receiver, tenant, number, before)
            until(lambda: len(receiver.of("/later")) == 2 * len(tenants), WAIT_S, "the retries")
            at_rest(grown.settings, len(tenants) * (EVENTS + 3))
            assert sorted(one.headers["webhook-id"] for one in receiver.of("/later")) == sorted(2 * [before.late for before in begun])
            assert run(grown, "rebuild", "all", "--verify-only", "--json")["equal"]
            assert run(grown, "rebuild", "dedup", "--verify-only", "--json")["equal"]
            told = run(grown, "explain", begun[0].posted[3], "--json")
            assert (told["status"], told["inbox"]["generation"], told["source"]["whole"]) == ("accepted", 1, True)
            assert told["ack"] is not None and told["deliveries"][0]["state"] == "delivered"
