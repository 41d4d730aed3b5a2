from __future__ import annotations

import json
import time
from importlib.resources import files

import pytest
from standardwebhooks import Webhook

from delivery.sign import body, headers, legacy
from schemas import codec
from schemas.events import Accepted
from schemas.ids import EventId

EXAMPLES = files("schemas") / "examples" / "events.accepted"


def accepted(name: str) -> Accepted:
    return codec.accepted.decode((EXAMPLES / name).read_bytes())


def test_the_body_holds_the_payload_slice_as_it_was_sent() -> None:
    event = accepted("full.json").event
    content = body(event)
    assert bytes(event.payload) in content
    assert b"  " in bytes(event.payload), "the example must have bytes that a parser would tidy"
    assert list(json.loads(content)) == ["id", "type", "timestamp", "data"]
    assert json.loads(content)["timestamp"] == event.occurred_at


def test_data_that_is_no_json_comes_as_base64_with_its_type() -> None:
    event = accepted("cloudevent.json").event
    document = json.loads(body(event))
    assert list(document) == ["id", "type", "timestamp", "datacontenttype", "data_base64"]
    assert (document["datacontenttype"], document["data_base64"]) == ("text/plain", "xbzDs8WCdw==")


def test_both_secrets_of_a_rotation_sign_and_the_official_library_agrees() -> None:
    content = b'{"id":"evt_1"}'
    secrets = [bytes(range(24)), bytes(range(24, 48))]
    at_s = int(time.time())
    made = headers(EventId("evt_1"), at_s, content, secrets)
    for secret in secrets:
        assert Webhook(secret).verify(content, made) == {"id": "evt_1"}


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="secret"):
        headers(EventId("evt_1"), 1, b"", [])


#: GitHub's documentation, "Testing the webhook payload validation", has this secret, payload and signature.
GITHUB_SECRET, GITHUB_PAYLOAD = b"It's a Secret to Everybody", b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_a_hex_signature_is_githubs() -> None:
    assert legacy("sha256-hex-body", 1, GITHUB_PAYLOAD, [GITHUB_SECRET]) == GITHUB_SIGNATURE


def test_a_base64_signature_is_that_of_the_body() -> None:
    # RFC 4231 section 4.3 (test case 2), its hexadecimal as base64.
    assert legacy("base64-body", 1, b"what do ya want for nothing?", [b"Jefe"]) == "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="


def test_a_signature_with_a_time_has_one_part_for_each_secret() -> None:
    # printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac "<secret>"
    before = b"The secret that came before it"
    assert legacy("t-v1-hex", 1_700_000_000, b'{"id":"evt_1"}', [GITHUB_SECRET, before]) == (
        "t=1700000000,v1=61d84f581d01df8583713b13b4433d27714c2c94581ffceef2b4602f03f632a9"
        ",v1=16d1218b83aa6332520091f5b7020eb1d097a4ec25952a244858c8d80ff6aafc"
    )


def test_where_there_is_room_for_one_signature_it_is_the_oldest_secrets_until_that_ends() -> None:
    new = b"a secret that the receiver does not know yet"
    assert legacy("sha256-hex-body", 1, GITHUB_PAYLOAD, [new, GITHUB_SECRET]) == GITHUB_SIGNATURE
    assert legacy("base64-body", 1, GITHUB_PAYLOAD, [new, GITHUB_SECRET]) == legacy("base64-body", 1, GITHUB_PAYLOAD, [GITHUB_SECRET])
