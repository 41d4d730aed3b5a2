"""What an endpoint was told, seen by a receiver: headers, filters, schedule, deadline, signatures, rotation; and its attempts."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from access.endpoint_secrets import parse_secret, secret_text
from triggers.provision import Tenant, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, until

WAIT_S = 40.0


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "deliveries")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


def add(client: httpx.Client, url: str, **members: Any) -> dict[str, Any]:
    answer = client.post("/endpoints", json={"url": url, **members})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def post(client: httpx.Client, event_type: str) -> str:
    answer = client.post("/events", json={"type": event_type, "payload": {"n": 1}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def attempts(client: httpx.Client, endpoint: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/endpoints/{endpoint}/attempts", params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["attempts"]
    return found


def verifies(secret: str, one: Received) -> bool:
    try:
        Webhook(secret).verify(one.body, dict(one.headers))
    except WebhookVerificationError:
        return False
    return True


def test_an_endpoint_receives_what_it_asked_for_in_the_form_it_asked_for_at_the_times_it_asked_for(
    client: httpx.Client, receiver: Receiver
) -> None:
    old = b"the secret of the sender before us"
    endpoint = add(
        client, receiver.url("/orders"), secret=secret_text(old), event_types=["order.*"], headers={"X-Tenant": "17"},
        schedule_s=[1, 2], legacy_signature={"header": "X-Hub-Signature-256", "scheme": "sha256-hex-body"},
    )  # fmt: skip
    add(client, receiver.url("/all"))
    receiver.answers["/orders"] = lambda _, before: 503 if before < 2 else 204
    wanted = post(client, "order.paid.late")
    others = [post(client, event_type) for event_type in ("order", "orders.paid", "refund")]
    until(lambda: len(receiver.of("/all")) == 4, WAIT_S, "all events at the endpoint that takes all")
    until(lambda: len(receiver.of("/orders")) == 3, WAIT_S, "three attempts")

    for one in receiver.of("/orders"):
        assert one.headers["webhook-id"] == wanted
        assert one.headers["x-tenant"] == "17"
        assert verifies(endpoint["secret"], one)
        # As the receiver of the other sender checks it, with the secret as it knows it: text, not base64.
        assert one.headers["x-hub-signature-256"] == "sha256=" + hmac.new(old, one.body, hashlib.sha256).hexdigest()
    assert len({one.body for one in receiver.of("/orders")}) == 1
    assert all("x-hub-signature-256" not in one.headers and "x-tenant" not in one.headers for one in receiver.of("/all"))
    assert {one.headers["webhook-id"] for one in receiver.of("/all")} == {wanted, *others}
    gaps_s = [later.at_s - earlier.at_s for earlier, later in pairwise(receiver.of("/orders"))]
    assert all(gap_s >= pause_s for gap_s, pause_s in zip(gaps_s, (1, 2), strict=True)), gaps_s

    until(lambda: len(attempts(client, endpoint["id"])) == 3, WAIT_S, "three attempts in the read side")
    last, *failed = attempts(client, endpoint["id"])
    assert [(one["attempt"], one["outcome"], one["status"], one["next"]) for one in (last, *failed)] == [
        (3, "delivered", 204, None), (2, "failed", 503, "retry"), (1, "failed", 503, "retry"),
    ]  # fmt: skip
    assert attempts(client, endpoint["id"], outcome="failed") == failed
    assert attempts(client, endpoint["id"], outcome="delivered") == [last]
    page = client.get(f"/endpoints/{endpoint['id']}/attempts", params={"limit": 2}).json()
    assert page["attempts"] == [last, failed[0]]
    page = client.get(f"/endpoints/{endpoint['id']}/attempts", params={"limit": 2, "before": page["next"]}).json()
    assert page == {"attempts": [failed[1]], "next": None}


def test_both_secrets_verify_during_the_overlap_and_only_the_new_one_afterwards(client: httpx.Client, receiver: Receiver) -> None:
    legacy = {"header": "X-Sig", "scheme": "t-v1-hex"}
    endpoint = add(client, receiver.url("/rotated"), legacy_signature=legacy)

    def received(count: int) -> Received:
        post(client, "order.paid")
        until(lambda: len(receiver.of("/rotated")) == count, WAIT_S, f"webhook number {count}")
        return receiver.of("/rotated")[-1]

    def legacy_verified(one: Received, *secrets: str) -> list[bool]:
        time, *parts = one.headers["x-sig"].split(",")
        signed = f"{time.removeprefix('t=')}.".encode() + one.body
        return ["v1=" + hmac.new(parse_secret(secret), signed, hashlib.sha256).hexdigest() in parts for secret in secrets]

    old = endpoint["secret"]
    first = received(1)
    assert verifies(old, first)
    new = client.post(f"/endpoints/{endpoint['id']}/rotate-secret").json()["secret"]
    second = received(2)
    assert [verifies(secret, second) for secret in (old, new)] == [True, True]
    assert legacy_verified(second, old, new) == [True, True]
    newest = client.post(f"/endpoints/{endpoint['id']}/rotate-secret", json={"overlap_s": 1}).json()["secret"]

    def one_signs() -> bool:
        return len(client.get(f"/endpoints/{endpoint['id']}").json()["secrets"]) == 1

    until(one_signs, WAIT_S, "the end of the overlap")
    third = received(3)
    assert [verifies(secret, third) for secret in (old, new, newest)] == [False, False, True]
    assert legacy_verified(third, old, new, newest) == [False, False, True]


def test_an_endpoint_with_a_deadline_of_its_own_is_not_waited_for_any_longer(client: httpx.Client, receiver: Receiver) -> None:
    """The service's deadline in these tests is 3 seconds."""
    let_go = threading.Event()

    def answer(_: Received, before: int) -> int:
        if before == 0:
            let_go.wait(WAIT_S)
        return 204

    receiver.answers["/slow"] = answer
    endpoint = add(client, receiver.url("/slow"), deadline_s=1, schedule_s=[1])
    try:
        post(client, "order.paid")
        until(lambda: len(attempts(client, endpoint["id"])) == 2, WAIT_S, "an attempt after the one that took too long")
    finally:
        let_go.set()
    second, first = attempts(client, endpoint["id"])
    assert (first["outcome"], first["error"], second["outcome"]) == ("failed", "timeout", "delivered")
    assert 1_000 <= first["duration_ms"] < 3_000


def test_what_is_disabled_or_deleted_gets_nothing_and_what_is_enabled_again_gets_what_comes_then(
    client: httpx.Client, receiver: Receiver
) -> None:
    off, gone = (add(client, receiver.url(path)) for path in ("/off", "/gone"))
    add(client, receiver.url("/on"))
    client.post(f"/endpoints/{off['id']}/disable")
    client.delete(f"/endpoints/{gone['id']}")
    post(client, "order.paid")
    until(lambda: len(receiver.of("/on")) == 1, WAIT_S, "the event at the endpoint that is on")
    client.post(f"/endpoints/{off['id']}/enable")
    client.patch(f"/endpoints/{off['id']}", json={"url": receiver.url("/moved"), "event_types": ["a.*"]})
    post(client, "order.paid")
    wanted = post(client, "a.b")
    until(lambda: len(receiver.of("/on")) == 3 and len(receiver.of("/moved")) == 1, WAIT_S, "the later events")
    assert [one.headers["webhook-id"] for one in receiver.of("/moved")] == [wanted]
    assert receiver.of("/off") == receiver.of("/gone") == []
