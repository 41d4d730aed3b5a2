from __future__ import annotations

import time

import pytest
from standardwebhooks import Webhook

from access.custom_headers import check_headers
from delivery import request_headers
from delivery.endpoints import Endpoint, LegacySignature
from schemas.ids import EndpointId, EventId

EVENT = EventId("evt_1")
OLD, NEW = bytes(range(24)), bytes(range(24, 48))
BODY = b'{"id":"evt_1"}'


def endpoint(headers: dict[str, str] | None = None, legacy: LegacySignature | None = None) -> Endpoint:
    return Endpoint(
        EndpointId("ep_1"), "org_1", "live", "https://x.example/", None, (NEW, OLD), headers=headers or {}, legacy_signature=legacy
    )


def test_an_endpoints_own_headers_go_along_and_both_secrets_verify() -> None:
    at_s = int(time.time())
    made = request_headers.headers(endpoint({"X-Tenant": "17"}), EVENT, at_s, BODY, [("traceparent", b"00-a-b-01"), ("other", b"x")])
    assert made["X-Tenant"] == "17"
    assert made["traceparent"] == "00-a-b-01"
    assert "other" not in made
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(BODY, made) == {"id": "evt_1"}


def test_nothing_an_endpoint_is_told_replaces_what_the_sender_says() -> None:
    ours = request_headers.headers(endpoint(), EVENT, 1, BODY, [("traceparent", b"00-a-b-01")])
    stored = {name.upper(): "forged" for name in ours}  # as no API of ours would have stored it
    assert request_headers.headers(endpoint(stored), EVENT, 1, BODY, [("traceparent", b"00-a-b-01")]) == ours
    legacy = LegacySignature("Webhook-Signature", "sha256-hex-body")
    assert request_headers.headers(endpoint(legacy=legacy), EVENT, 1, BODY, [("traceparent", b"00-a-b-01")]) == ours


def test_a_legacy_signature_is_one_header_more_and_wins_over_a_header_of_its_name() -> None:
    legacy = LegacySignature("X-Hub-Signature-256", "sha256-hex-body")
    made = request_headers.headers(endpoint({"x-hub-signature-256": "forged"}, legacy), EVENT, 1, BODY, [])
    assert made.keys() == request_headers.headers(endpoint(), EVENT, 1, BODY, []).keys() | {"X-Hub-Signature-256"}
    assert made["X-Hub-Signature-256"].startswith("sha256=")


def test_a_scheme_of_a_later_version_costs_the_extra_header_and_not_the_delivery() -> None:
    made = request_headers.headers(endpoint(legacy=LegacySignature("X-Later", "ed25519")), EVENT, 1, BODY, [])
    assert "X-Later" not in made
    assert made["webhook-signature"].count("v1,") == 2


def test_what_was_asked_for_is_marked_and_a_customer_can_neither_choose_nor_replace_the_mark() -> None:
    forged = {"x-triggers-delivery": "retry"}
    assert request_headers.headers(endpoint(forged), EVENT, 1, BODY, [], "test")[request_headers.CAUSE_HEADER] == "test"
    assert request_headers.CAUSE_HEADER not in request_headers.headers(endpoint(), EVENT, 1, BODY, [])
    with pytest.raises(ValueError, match="set by the sender"):
        check_headers(forged)
