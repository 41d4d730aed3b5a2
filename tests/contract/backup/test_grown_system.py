"""A system whose partitions have grown: readers, deliveries and dedup go on, in another topic generation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from runtime.settings import Settings
from runtime.topics import admin
from schemas.topics import DEDUP_APP, DELIVERY_GROUP, PROJECT_APP
from tests.contract.backup.test_backup import command
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
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

PARTITIONS = 7
EVENTS = 20
ROWS = "SELECT * FROM inbox ORDER BY organization, mode, generation, position"

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


def groups_left(settings: Settings) -> None:
    """Static members stay in their groups until their session ends."""
    client = admin(settings.kafka)

    def nobody() -> bool:
        answers = client.describe_consumer_groups([DEDUP_APP, PROJECT_APP, DELIVERY_GROUP], request_timeout=20)
        return not any(answer.result(20).members for answer in answers.values())

    until(nobody, WAIT_S, "the workers leaving", 0.5)


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
    environments: tuple[dict[str, str], dict[str, str]], empty_source: Settings, tmp_path: Path
) -> None:
    environment = of(environments[0], empty_source)
    with Receiver() as receiver:
        receiver.answers["/later"] = failing_first()
        with running(environment, tmp_path / "system") as system:
            tenants = [make_tenant(system.settings, f"grown {number}") for number in range(4)]
            for number, tenant in enumerate(tenants):
                make_endpoint(system.settings, tenant.organization, receiver.url(f"/fifo{number}"), event_types=["order.paid"], fifo=True)
                make_endpoint(system.settings, tenant.organization, receiver.url("/later"), event_types=["order.late"])
            begun = [begin(system, receiver, tenant, number) for number, tenant in enumerate(tenants)]
            until(lambda: len(receiver.of("/later")) == len(tenants), WAIT_S, "the first attempts")
            at_rest(system.settings, len(tenants) * (EVENTS + 1))
            refused = command(system.settings, "topics", "grow", "--partitions", str(PARTITIONS), tmp_path / "move")
            assert refused.returncode == 1
            assert "are running: stop every process" in refused.stderr
            with client_of(system, make_tenant(system.settings, "beside")) as client:  # it goes on as if nothing had been asked
                event = post(client, 1)
                until(lambda: ids(inbox(client)) == [event], WAIT_S, "an event after the refusal")
            at_rest(system.settings, len(tenants) * (EVENTS + 1))
            rows = fetch(system.settings, ROWS)
        stopped = System({**environment, **SCHEDULE}, tmp_path)
        groups_left(stopped.settings)
        grown_to = run(stopped, "topics", "grow", "--partitions", str(PARTITIONS), tmp_path / "move", "--json")
        assert (grown_to["partitions"], grown_to["generation"], grown_to["inbox"]) == (PARTITIONS, 2, len(rows))
        assert fetch(stopped.settings, ROWS) == rows
        with redis.Redis.from_url(stopped.settings.redis.url.get_secret_value()) as client:
            client.flushdb()
        more = {**environment, "TRIGGERS_KAFKA__PARTITIONS": str(PARTITIONS)}
        with running(more, tmp_path / "system") as grown:
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
