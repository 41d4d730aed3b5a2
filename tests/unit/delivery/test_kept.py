"""An event that comes back from the inbox is posted as it was the first time."""

from __future__ import annotations

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from delivery import sign
from projections import inbox
from schemas import codec, ids, kept, keys
from schemas.events import Accepted, Ingested, Origin
from schemas.records import Record

GOLDEN = sorted((files("schemas") / "examples" / "events.ingested").iterdir(), key=lambda one: one.name)


def through_the_inbox(event: Ingested) -> Ingested:
    ((row,), _) = inbox.fold(0, [(Record(7, 1, None, b"", ()), Accepted(v=1, ingested=Origin(3, 1), event=event))], -1)
    found = row._asdict()
    return kept.ingested(event.id, event.organization, event.mode, kept.Row(**{name: found[name] for name in kept.Row._fields}))


@pytest.mark.parametrize("golden", [one.read_bytes() for one in GOLDEN], ids=[one.name for one in GOLDEN])
def test_the_body_of_every_golden_event_is_the_same_and_what_is_sent_again_can_be_read(golden: bytes) -> None:
    event = codec.ingested.decode(golden)
    again = through_the_inbox(event)
    assert sign.body(again) == sign.body(event)
    assert codec.ingested.decode(codec.encode(again)) == again
    assert (again.cloudevent, again.subject) == (event.cloudevent, event.subject)


@given(
    payload=st.sampled_from(['{ "a" : 1.0e2,\n "é": "\\u00e9" }', '"YWI="', "null", "[]", "1E400"]),
    base64=st.booleans(),
    occurred_at=st.none() | st.just("2026-11-24T02:31:23.155+01:00"),
    content_type=st.sampled_from(["application/json", "image/png"]),
)
def test_no_slice_time_or_content_type_changes_on_the_way(payload: str, base64: bool, occurred_at: str | None, content_type: str) -> None:
    event = Ingested(
        v=1, id=ids.event_id(1, bytes(10)), organization=ids.organization_id(1, bytes(10)), mode="test", type="a.b", received_at_ms=5,
        fingerprint=keys.fingerprint("a.b", None, payload.encode()), occurred_at=occurred_at, content_type=content_type, base64=base64,
        payload=Raw(payload.encode()),
    )  # fmt: skip
    assert sign.body(through_the_inbox(event)) == sign.body(event)
