"""Golden messages: what is in the log today must be readable for ever, byte for byte where bytes are promised."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from schemas import codec
from schemas.codec import Codec, CodecError
from schemas.events import Ingested

CODECS: dict[str, Codec[Any]] = {
    "events.ingested": codec.ingested,
    "events.accepted": codec.accepted,
    "events.duplicates": codec.duplicate,
    "inbox.acks": codec.ack,
    "deliveries.attempts": codec.journal,
    "deliveries.retry": codec.retry_task,
    "deliveries.dead": codec.dead_letter,
    "deliveries.fifo": codec.fifo_position,
    "deliveries.requests": codec.request,
    "lifecycle": codec.lifecycle,
}
EXAMPLES = [
    pytest.param(folder.name, example.read_bytes(), id=f"{folder.name}/{example.name}")
    for folder in sorted((files("schemas") / "examples").iterdir(), key=lambda f: f.name)
    for example in sorted(folder.iterdir(), key=lambda f: f.name)
]
FULL = (files("schemas") / "examples" / "events.ingested" / "full.json").read_bytes()
CLOUDEVENT = (files("schemas") / "examples" / "events.ingested" / "cloudevent.json").read_bytes()


def test_every_topic_with_values_has_golden_messages() -> None:
    assert {param.values[0] for param in EXAMPLES} == set(CODECS)


@pytest.mark.parametrize(("topic", "value"), EXAMPLES)
def test_golden_message_is_read_and_written_again_the_same(topic: str, value: bytes) -> None:
    record = CODECS[topic].decode(value)
    again = codec.encode(record)
    if b"added_in_a_later_minor" not in value or topic.startswith("deliveries"):
        assert again == value
    assert CODECS[topic].decode(again) == record


def test_the_payload_is_the_exact_slice() -> None:
    event = codec.ingested.decode(FULL)
    assert bytes(event.payload) == '{ "action" : "opened",\n  "number": 1.0, "title": "Zażółć 🚀" }'.encode()


def test_an_accepted_record_carries_the_ingested_value_verbatim_with_fields_it_does_not_know() -> None:
    newer = FULL[:-1] + b',"added_in_a_later_minor":{"x":[1,2]}}'
    value = codec.encode_accepted(newer, 41, 1_795_485_083_160)
    assert newer in value
    accepted = codec.accepted.decode(value)
    assert (accepted.ingested.offset, accepted.ingested.appended_at_ms) == (41, 1_795_485_083_160)
    assert len(value) - len(newer) <= codec.ACCEPTED_OVERHEAD_BYTES_MAX


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "malformed"),
        (b"not json", "malformed"),
        (FULL[:-1], "malformed"),
        (FULL.replace(b'"v":1', b'"v":2'), "unknown_version"),
        (b'{"v":2,"everything":"else"}', "unknown_version"),
        (b'{"v":2147483648}', "unknown_version"),
        (FULL.replace(b'"v":1', b'"v":"1"'), "malformed"),
        (FULL.replace(b'"v":1,', b""), "malformed"),
        (FULL.replace(b'"mode":"live"', b'"mode":"prod"'), "malformed"),
        (FULL.replace(b'"subject":"pr/1"', b'"subject":"a\\u0000b"'), "malformed"),
        (FULL.replace(b'"subject":"pr/1"', b'"subject":"\\ud800"'), "malformed"),
        (FULL.replace(b"opened", b"\xff"), "malformed"),
        (FULL.replace(b'"number": 1.0', b'"number": NaN'), "malformed"),
        (FULL.replace(b'"received_at_ms":1795485083155', b'"received_at_ms":-1'), "malformed"),
        (FULL.replace(b"evt_01a20b40", b"evt_01A20B40"), "malformed"),
        (b"[" * 100_000, "malformed"),
    ],
)
def test_what_is_no_record_of_ours_is_told_apart_and_never_raises_anything_else(value: bytes | None, reason: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.ingested.decode(value)
    assert caught.value.reason == reason


def test_no_field_of_an_event_is_lost_between_struct_and_bytes() -> None:
    events = [codec.ingested.decode(value) for value in (FULL, CLOUDEVENT)]
    assert {name for name in Ingested.__struct_fields__ if all(getattr(event, name) is None for event in events)} == set()
    for event in events:
        assert codec.ingested.decode(codec.encode(event)) == event
