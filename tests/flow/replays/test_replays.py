"""Replays on the whole running system, as an operator asks for them and a receiver sees them: counted, paced, stopped, gone on with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from runtime.postgres import connect
from schemas.topics import DELIVERY_GROUP, EVENTS_ACCEPTED
from tests.backends import Servers
from tests.flow.replays.asking import MARK, WAIT_S, arrived, committed, ids_of, parts, post, replayed, run, start, steer
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until


def test_what_a_dry_run_counts_is_what_arrives_and_nothing_else_is_touched(
    system: System, client: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    second, receiver.secrets["/second"] = make_endpoint(
        system.settings, tenant.organization, receiver.url("/second"), event_types=["order.paid", "refund"]
    )
    fifo, _ = make_endpoint(system.settings, tenant.organization, receiver.url("/fifo"), fifo=True)
    off, _ = make_endpoint(system.settings, tenant.organization, receiver.url("/off"))
    other = make_tenant(system.settings, "others")
    make_endpoint(system.settings, other.organization, receiver.url("/other"))
    with httpx.Client(base_url=system.url, headers={"X-API-Key": other.key}, timeout=15) as theirs:
        foreign = post(theirs, "order.paid")
    before = post(client, *["order.paid"] * 5, "refund")
    arrived(receiver, before[:5])
    arrived(receiver, foreign, "/other")
    wanted = post(client, *["order.paid"] * 6, "order.late.very", "order.late", "refund", "order")
    arrived(receiver, wanted[:8])
    arrived(receiver, [*wanted[:6], wanted[8]], "/second")
    arrived(receiver, [*before, *wanted], "/fifo")
    assert client.post(f"/endpoints/{off}/disable").status_code == 200
    since = client.get(f"/events/{wanted[0]}").json()["received_at"]
    until(lambda: client.get(f"/events/{wanted[-1]}").json()["status"] == "accepted", WAIT_S, "the last one", 0.1)
    until(lambda: _settled(system), WAIT_S, "the live group committing", 0.2)
    offsets = committed(system)
    span = [tenant.organization, "--all", "--type", "order.*", "--since", since]
    dry = run(system, "start", *span, "--dry-run")
    assert {one["endpoint_id"]: one["deliveries"] for one in dry["endpoints"]} == {endpoint: 8, second: 6}
    assert (dry["events"], {one["endpoint_id"]: one["why"] for one in dry["skipped"]}) == (8, {fifo: "fifo", off: "disabled"})
    assert "14 deliveries" in run(system, "start", *span, status=1), "without a terminal nothing is started unless it is told to"
    made = run(system, "start", *span, "--yes", "--rate", "100")
    until(lambda: run(system, "show", made["id"])["state"] == "done", WAIT_S, "the replay", 0.2)
    first, again = receiver.of(), replayed(receiver)
    assert ids_of(again) == Counter(wanted[:8])
    assert ids_of(replayed(receiver, "/second")) == Counter(wanted[:6])
    assert not [*replayed(receiver, "/fifo"), *replayed(receiver, "/off"), *replayed(receiver, "/other")]
    assert all(one.verified for one in again)
    original = {one.headers["webhook-id"]: one for one in first if MARK not in one.headers}
    for one in again:
        came = original[one.headers["webhook-id"]]
        assert one.body == came.body
        assert int(one.headers["webhook-timestamp"]) >= int(came.headers["webhook-timestamp"])
    shown = run(system, "show", made["id"])
    assert {one["endpoint_id"]: (one["state"], one["expected"], one["begun"]) for one in shown["endpoints"]} == {
        endpoint: ("done", 8, 8), second: ("done", 6, 6),
    }  # fmt: skip
    assert committed(system) == offsets
    assert [one["id"] for one in run(system, "list", "--organization", tenant.organization)] == [made["id"]]
    middle = shown["from_position"]
    positions = ["--endpoint", endpoint, "--from-position", str(middle), "--until-position", str(shown["until_position"])]
    assert run(system, "start", tenant.organization, *positions, "--dry-run")["events"] >= 8
    assert run(system, "start", tenant.organization, *positions[:2], "--mode", "test", "--dry-run", status=1), "it is no test endpoint"
    with connect(system.settings.postgres, application="tests") as connection:
        audited = connection.execute("SELECT action, organization FROM control.audit_log WHERE target = %s", (made["id"],)).fetchall()
    assert audited == [("replay.started", tenant.organization)]


def _settled(system: System) -> bool:
    consumer = Consumer({"bootstrap.servers": system.settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP})
    try:
        places = [TopicPartition(EVENTS_ACCEPTED, number) for number in range(system.settings.kafka.partitions)]
        ends = [consumer.get_watermark_offsets(place, timeout=20)[1] for place in places]
        return [place.offset for place in consumer.committed(places, timeout=20)] == ends
    finally:
        consumer.close()


def test_a_paused_replay_sends_nothing_though_the_worker_is_killed_goes_on_where_it_was_and_ends_when_it_is_cancelled(
    system: System, client: httpx.Client, desk: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    events = post(client, *["order.paid"] * 30)
    arrived(receiver, events)
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=10)
    until(lambda: len(replayed(receiver)) >= 5, WAIT_S, "a part of it", 0.05)
    steer(desk, made["id"], state="paused")
    until(lambda: parts(desk, made["id"]) == ["paused"], WAIT_S, "the pause", 0.05)
    sent = len(replayed(receiver))
    assert 5 <= sent < 30
    system.supervisor.kill("delivery")
    arrived(receiver, post(client, "order.new"))
    assert len(replayed(receiver)) == sent
    assert desk.get(f"/replays/{made['id']}").json()["endpoints"][0]["begun"] == sent
    steer(desk, made["id"], state="running", rate_per_s=200)
    until(lambda: parts(desk, made["id"]) == ["done"], WAIT_S, "the rest", 0.1)
    assert ids_of(replayed(receiver)) == Counter(events)
    steer(desk, made["id"], 409, state="running")

    before = len(receiver.of())
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=10)
    until(lambda: len(receiver.of()) >= before + 3, WAIT_S, "a part of it", 0.05)
    steer(desk, made["id"], state="cancelled")
    until(lambda: parts(desk, made["id"]) == ["cancelled"], WAIT_S, "the end", 0.05)
    sent = len(replayed(receiver))
    arrived(receiver, post(client, "order.newer"))
    assert len(replayed(receiver)) == sent < 60
    steer(desk, made["id"], 409, state="running")
    with connect(system.settings.postgres, application="tests") as connection:
        rows = connection.execute("SELECT action FROM control.audit_log WHERE organization = %s ORDER BY id", (tenant.organization,))
        actions = [row[0] for row in rows if row[0].startswith("replay.")]
    assert actions == ["replay.started", "replay.paused", "replay.resumed", "replay.updated", "replay.started", "replay.cancelled"]


@pytest.mark.parametrize(
    "place",
    [
        "replay.in_page:8",
        *(
            pytest.param(place, marks=pytest.mark.verify)
            for place in (
                "replay.after_plan:5",
                "replay.before_next:1",
                "replay.after_next:1",
                "replay.after_page:1",
                "delivery.after_post:30",
            )
        ),
    ],
)
def test_a_worker_that_is_killed_in_the_middle_of_a_replay_loses_nothing_and_repeats_only_what_was_under_way(
    system: System, client: httpx.Client, desk: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver, tmp_path: Path, place: str
) -> None:
    events = post(client, *["order.paid"] * (100 if place.startswith("replay.after_next") else 24))
    if place.startswith("replay.after_next"):
        events += post(client, *["order.paid"] * 20)  # more than one page
    arrived(receiver, events)
    armed = tmp_path / "delivery.crash"
    armed.write_text(place)
    system.supervisor.stop("delivery")
    system.start_process("delivery", ("deliver",), {"TRIGGERS_CRASH_FILE": str(armed)})
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=100)
    live: list[str] = []
    if place.startswith("delivery."):
        live = post(client, *["order.new"] * 10)
    until(lambda: not armed.exists(), WAIT_S, "the worker dying in the middle", 0.05)
    until(lambda: parts(desk, made["id"]) == ["done"], 60, "the replay", 0.1)
    found = ids_of(replayed(receiver))
    assert found.keys() - set(live) == set(events)
    assert sum(found.values()) <= len(found) + 4, "a kill may repeat the few that were under way, and nothing else"
    assert max(found.values()) <= 2
    assert desk.get(f"/replays/{made['id']}").json()["endpoints"][0]["begun"] == len(found)
    arrived(receiver, [*live, *post(client, "order.new")])


@pytest.mark.verify
def test_a_broker_that_is_killed_during_a_replay_loses_nothing_and_repeats_nothing(
    system: System, servers: Servers, client: httpx.Client, desk: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    assert servers.stack is not None
    events = post(client, *["order.paid"] * 100) + post(client, *["order.paid"] * 100) + post(client, *["order.paid"] * 50)
    arrived(receiver, events)
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=20)
    for sent in (30, 130):
        until(lambda sent=sent: len(replayed(receiver)) >= sent, 60, f"{sent} of it", 0.05)  # type: ignore[misc]
        servers.stack.kafka.kill()
        servers.stack.kafka.bring_up()
    until(lambda: parts(desk, made["id"]) == ["done"], 120, "the replay", 0.2)
    found = ids_of(replayed(receiver))
    assert found.keys() == set(events)
    assert max(found.values()) <= 2
    assert sum(found.values()) <= len(events) + 2 * 4


def test_a_replay_that_fails_is_retried_and_counts_as_no_failure_waits_while_it_is_paused_and_ends_when_it_is_cancelled(
    system: System, client: httpx.Client, desk: httpx.Client, tenant: Tenant, endpoint: str, receiver: Receiver
) -> None:
    events = post(client, *["order.paid"] * 14)  # more failures in a row than open a circuit breaker
    arrived(receiver, events)
    receiver.answers["/webhooks"] = lambda one, _: 500 if one.headers.get(MARK) == "replay" else 204
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=200)
    until(lambda: len(replayed(receiver)) == 28, WAIT_S, "both attempts of each", 0.05)
    until(lambda: _attempts(client, endpoint, made["id"]).count("exhausted") == 14, WAIT_S, "the dead letters", 0.1)
    state = client.get(f"/endpoints/{endpoint}").json()
    assert (state["enabled"], state["failing_since"]) == (True, None)
    arrived(receiver, post(client, "order.new"))

    receiver.answers["/webhooks"] = lambda one, _: 410 if one.headers.get(MARK) == "replay" else 204
    gone = start(desk, organization=tenant.organization, endpoint_id=endpoint, event_types=["order.new"])
    until(lambda: _attempts(client, endpoint, gone["id"]) == ["gone"], WAIT_S, "the answer", 0.1)
    assert client.get(f"/endpoints/{endpoint}").json()["enabled"], "what is said to a replay disables nothing"

    receiver.answers["/webhooks"] = lambda one, _: 500 if one.headers.get(MARK) == "replay" else 204
    before = len(replayed(receiver))
    made = start(desk, organization=tenant.organization, endpoint_id=endpoint, rate_per_s=200, event_types=["order.paid"])
    until(lambda: len(replayed(receiver)) >= before + 1, WAIT_S, "the first attempts", 0.01)
    assert steer(desk, made["id"], state="cancelled")["state"] == "cancelled"

    def retries() -> list[dict[str, Any]]:
        found = client.get(f"/endpoints/{endpoint}/attempts", params={"round": made["id"], "limit": 250}).json()["attempts"]
        return [one for one in found if one["next"] != "retry"]

    until(lambda: 0 < len(replayed(receiver)) - before == len(retries()), WAIT_S, "its retries ending", 0.1)
    assert {(one["error"], one["status"], one["dead_reason"]) for one in retries()} == {("cancelled", None, None)}


def _attempts(client: httpx.Client, endpoint: str, replay: str) -> list[str]:
    """Why deliveries of a replay were given up."""
    answer = client.get(f"/endpoints/{endpoint}/attempts", params={"round": replay, "limit": 250})
    return [one["dead_reason"] for one in answer.json()["attempts"] if one["dead_reason"]]
