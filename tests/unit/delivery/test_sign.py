from __future__ import annotations

import json
import time
from importlib.resources import files

import pytest
from standardwebhooks import Webhook

from delivery.sign import body, headers
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
