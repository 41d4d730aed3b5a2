from __future__ import annotations

import base64

import pytest
from standardwebhooks import Webhook

from access.endpoints import check_event_types, secret_text


def test_event_types_keep_their_order_and_lose_repetitions() -> None:
    assert check_event_types(["order.created", "a", "order.created"]) == ("order.created", "a")


@pytest.mark.parametrize("event_type", ["", "not a type", "a..b", ".a", "a.", "a\n", "é", "*", "order.*", "a" * 257])
def test_an_event_type_that_no_event_can_have_is_refused(event_type: str) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        check_event_types(["fine", event_type])


def test_an_endpoint_takes_a_bounded_number_of_event_types() -> None:
    assert len(check_event_types([f"t{number}" for number in range(100)])) == 100
    with pytest.raises(ValueError, match="at most 100"):
        check_event_types([f"t{number}" for number in range(101)])


def test_the_secret_is_what_a_standard_webhooks_library_takes() -> None:
    secret = bytes(range(24))
    assert secret_text(secret) == "whsec_" + base64.b64encode(secret).decode()
    assert Webhook(secret_text(secret))._whsecret == secret
