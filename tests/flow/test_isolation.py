"""What one endpoint does costs others nothing: slow, dead, throttled and disabled ones beside healthy ones, on the running system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from runtime.postgres import connect
from schemas.events import is_reserved
from triggers.bad_receiver import BadReceiver
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.system import System, until

DEAD = ("/never", "/drip", "/reset", "/500", "/429")
EVENTS = 40


@pytest.fixture
def bad() -> Iterator[BadReceiver]:
    with BadReceiver() as one:
        yield one


def client_of(system: System, tenant: Tenant) -> httpx.Client:
    return httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=30)


def post(client: httpx.Client, number: int, kind: str = "isolation.test") -> str:
    answer = client.post("/events", json={"type": kind, "payload": {"n": number}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def told(client: httpx.Client) -> list[tuple[str, dict[str, Any]]]:
    """The operational events in the inbox."""
    events = client.get("/inbox", params={"status": "all", "limit": 1000}).json()["events"]
    return [(event["type"], event["payload"]) for event in events if is_reserved(event["type"])]


def change(system: System, endpoint_id: str, what: str) -> None:
    with connect(system.settings.postgres, application="tests") as connection:
        connection.execute(f"UPDATE control.endpoints SET {what} WHERE id = %s", (endpoint_id,))


def test_dead_endpoints_delay_no_healthy_one_spend_no_attempts_and_get_everything_when_they_are_back(
    system: System, bad: BadReceiver
) -> None:
    tenant = make_tenant(system.settings, "dead and healthy")
    healthy, _ = make_endpoint(system.settings, tenant.organization, bad.url("/healthy"))
    dead = {path: make_endpoint(system.settings, tenant.organization, bad.url(path))[0] for path in DEAD}
    with client_of(system, tenant) as client:
        posted = [post(client, number) for number in range(EVENTS)]
        until(lambda: {one.webhook_id for one in bad.of("/healthy")} == set(posted), 60, "every healthy delivery", 0.1)
        # One that never answers holds four attempts, then two, then one, each until its deadline: most were not even begun.
        assert len(bad.of("/never")) < EVENTS
        until(lambda: Counter(kind for kind, _ in told(client))["triggers.endpoint.failing"] == len(DEAD), 90, "each failure told", 0.5)
        bad.better.update(DEAD)

        def undelivered() -> list[str]:
            return [event for event in posted if any(not d["attempts"] or d["attempts"][-1]["outcome"] != "delivered" for d in of(event))]

        def of(event: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get(f"/events/{event}").json().get("deliveries", [])
            return [d for d in found if not any(a["dead_reason"] for a in d["attempts"])]

        until(lambda: not undelivered(), 90, "every delivery that was not given up", 1.0)
        until(lambda: Counter(kind for kind, _ in told(client))["triggers.endpoint.recovered"] == len(DEAD), 60, "each recovery told", 0.5)
        for event in posted:
            for delivery in client.get(f"/events/{event}").json()["deliveries"]:
                numbers = [made["attempt"] for made in delivery["attempts"]]
                assert numbers == list(range(1, len(numbers) + 1)), "being put off has spent an attempt"
                if delivery["endpoint_id"] == healthy:
                    assert numbers == [1]
        about = {payload["endpoint_id"] for kind, payload in told(client) if kind.startswith("triggers.endpoint.")}
    assert about == set(dead.values())


def test_deliveries_above_an_endpoints_rate_come_at_their_turn_in_order(system: System, bad: BadReceiver) -> None:
    tenant = make_tenant(system.settings, "rate")
    endpoint, _ = make_endpoint(system.settings, tenant.organization, bad.url("/paced"))
    change(system, endpoint, "rate_per_minute = 60, concurrency = 1")  # one at once: else the first few may overtake each other
    make_endpoint(system.settings, tenant.organization, bad.url("/unpaced"))
    with client_of(system, tenant) as client:
        posted = [post(client, number) for number in range(8)]
        until(lambda: len(bad.of("/unpaced")) == len(posted), 30, "the deliveries without a rate", 0.1)
        until(lambda: len(bad.of("/paced")) == len(posted), 60, "all paced deliveries", 0.1)
    arrivals = bad.of("/paced")
    assert [one.webhook_id for one in arrivals] == posted
    burst = 2  # what two smallest delays are worth at this rate, and the turn of now
    for first in range(len(arrivals)):
        for last in range(first, len(arrivals)):
            assert last - first + 1 <= arrivals[last].at_s - arrivals[first].at_s + burst + 0.5
    assert all(later.at_s >= earlier.at_s for earlier, later in pairwise(arrivals))


def test_what_comes_while_an_endpoint_is_disabled_is_held_and_counted(system: System, bad: BadReceiver) -> None:
    tenant = make_tenant(system.settings, "held")
    endpoint, _ = make_endpoint(system.settings, tenant.organization, bad.url("/held"), event_types=["held.*"])
    change(system, endpoint, "enabled = false, disabled_reason = 'owner', disabled_at = now()")
    with client_of(system, tenant) as client:
        missed = [post(client, number, "held.a") for number in range(3)]
        post(client, 9, "other.type")

        def held() -> set[str]:
            with connect(system.settings.postgres, application="tests") as connection:
                rows = connection.execute("SELECT event_id FROM folds.plans WHERE endpoint_id = %s AND held", (endpoint,)).fetchall()
            return {row[0] for row in rows}

        until(lambda: held() == set(missed), 40, "what was missed being counted", 0.2)
        change(system, endpoint, "enabled = true, disabled_reason = NULL, disabled_at = NULL")
        after = post(client, 4, "held.a")
        until(lambda: bool(bad.of("/held")), 30, "the first delivery after it was enabled", 0.1)
    assert [one.webhook_id for one in bad.of("/held")] == [after]
    assert held() == set(missed)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("enabled = false, disabled_reason = 'owner', disabled_at = now()", "endpoint_disabled"),
        ("deleted_at = now(), enabled = false", "endpoint_missing"),
    ],
)
def test_a_retry_that_comes_due_at_an_endpoint_that_is_disabled_or_deleted_is_given_up_and_says_which(
    system: System, bad: BadReceiver, what: str, reason: str
) -> None:
    tenant = make_tenant(system.settings, reason)
    endpoint, _ = make_endpoint(system.settings, tenant.organization, bad.url("/503"), schedule_s=[2])
    with client_of(system, tenant) as client:
        event = post(client, 1)
        until(lambda: bool(bad.of("/503")), 40, "the first attempt", 0.05)
        change(system, endpoint, what)
        until(lambda: bool(told(client)), 40, "the end being told", 0.2)
        ((kind, letter),) = told(client)
    assert (kind, letter["event_id"], letter["reason"], letter["error"]) == ("triggers.delivery.dead", event, reason, reason)
    assert len(bad.of("/503")) == 1


@pytest.mark.parametrize(("path", "reason"), [("/410", "gone"), ("/503", "failing")])
def test_an_endpoint_that_is_gone_or_failed_for_five_days_is_disabled_told_and_audited(
    system: System, bad: BadReceiver, path: str, reason: str
) -> None:
    tenant = make_tenant(system.settings, reason)
    endpoint, _ = make_endpoint(system.settings, tenant.organization, bad.url(path))
    asked, _ = make_endpoint(system.settings, tenant.organization, bad.url("/told"), event_types=["triggers.*"])
    make_endpoint(system.settings, tenant.organization, bad.url("/all"))
    if reason == "failing":
        change(system, endpoint, "failing_since = now() - interval '6 days'")
    with client_of(system, tenant) as client:
        event = post(client, 1)

        def row() -> tuple[Any, ...] | None:
            with connect(system.settings.postgres, application="tests") as connection:
                return connection.execute("SELECT enabled, disabled_reason FROM control.endpoints WHERE id = %s", (endpoint,)).fetchone()

        until(lambda: row() == (False, reason), 40, "the endpoint being disabled", 0.2)
        until(lambda: len(told(client)) == 2, 40, "both being told", 0.2)
        found = dict(told(client))
        until(lambda: len(bad.of("/told")) == 2, 30, "both reaching the endpoint that asks for them by name", 0.2)
    assert found["triggers.endpoint.disabled"]["endpoint_id"] == endpoint
    assert found["triggers.endpoint.disabled"]["reason"] == reason
    letter = found["triggers.delivery.dead"]
    assert (letter["event_id"], letter["endpoint_id"]) == (event, endpoint)
    assert [one.webhook_id for one in bad.of("/all")] == [event], "an endpoint without a filter gets no operational events"
    with connect(system.settings.postgres, application="tests") as connection:
        audited = connection.execute(
            "SELECT actor, detail ->> 'reason' FROM control.audit_log WHERE target = %s AND action = 'endpoint.disabled'", (endpoint,)
        ).fetchall()
    assert audited == [("delivery:delivery-0", reason)]
    assert asked
