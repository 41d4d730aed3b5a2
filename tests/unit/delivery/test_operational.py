"""What an organization is told of its endpoints: the same event when told again, never about itself, only to those who ask for it."""

from __future__ import annotations

import msgspec
import pytest

from delivery import operational
from delivery.endpoints import Endpoint
from delivery.partition import _takers
from delivery.policy import dead_letter
from schemas import codec, ids, keys
from schemas.deliveries import Attempted, Dead
from schemas.events import Ingested, is_reserved

ORGANIZATION = ids.organization_id(1, bytes(10))
ENDPOINT = ids.endpoint_id(1, bytes(10))
ATTEMPTED = Attempted(
    v=1, event_id=ids.event_id(1, bytes(10)), organization=ORGANIZATION, mode="test", endpoint_id=ENDPOINT, attempt=6, outcome="failed",
    started_at_ms=1_795_485_083_000, duration_ms=12, worker="w", status=500, error="status", next=Dead(reason="exhausted"),
)  # fmt: skip


def event(kind: str) -> Ingested:
    return Ingested(
        v=1, id=ids.event_id(1, bytes(10)), organization=ORGANIZATION, mode="test", type=kind, received_at_ms=1,
        fingerprint=keys.fingerprint(kind, None, b"1"), payload=msgspec.Raw(b"1"),
    )  # fmt: skip


def told(kind: str = "order.paid") -> list[Ingested | None]:
    return [
        operational.failing(ATTEMPTED, 1_795_485_000_000),
        operational.recovered(ATTEMPTED, 1_795_485_000_000),
        operational.disabled(ATTEMPTED, "gone", 1_795_485_000_000),
        operational.dead_letter(dead_letter(ATTEMPTED, Dead(reason="exhausted"), (), codec.encode(event(kind)))),
    ]


def test_what_is_told_again_is_the_same_event_and_every_telling_is_another() -> None:
    made = [one for one in told() if one is not None]
    assert made == told()
    assert len({one.id for one in made}) == len({one.dedup_key for one in made}) == 4
    for one in made:
        assert codec.ingested.decode(codec.encode(one)) == one
        assert is_reserved(one.type)
        assert (one.organization, one.mode) == (ORGANIZATION, "test")
    other = operational.failing(msgspec.structs.replace(ATTEMPTED, mode="live"), 1_795_485_000_000)
    assert other.id != made[0].id


def test_the_dead_letter_of_each_round_is_told() -> None:
    again = msgspec.structs.replace(ATTEMPTED, round=ids.round_id(1, bytes(10)), cause="retry")
    letters = [dead_letter(one, Dead(reason="exhausted"), (), codec.encode(event("order.paid"))) for one in (ATTEMPTED, again)]
    first, second = (operational.dead_letter(letter) for letter in letters)
    assert first is not None
    assert second is not None
    assert (first.id, first.dedup_key) != (second.id, second.dedup_key)
    assert b'"cause":"retry"' in bytes(second.payload)


def test_the_dead_letter_of_an_operational_event_is_not_told() -> None:
    assert told("triggers.endpoint.failing")[-1] is None


FILTERS = [
    (None, False),
    (("*",), False),
    (("order.*",), False),
    (("*", "triggers.delivery.dead"), False),
    (("*", "triggers.*"), True),
    (("triggers.endpoint.failing",), True),
]


@pytest.mark.parametrize(("filters", "gets"), FILTERS)
def test_operational_events_go_to_those_who_name_them(filters: tuple[str, ...] | None, gets: bool) -> None:
    endpoint = Endpoint(ENDPOINT, ORGANIZATION, "test", "http://x", filters, ())
    disabled = endpoint._replace(enabled=False)
    expected = [ENDPOINT] if gets else []
    assert _takers(event("triggers.endpoint.failing"), [endpoint]) == (expected, [], [])
    assert _takers(event("triggers.endpoint.failing"), [disabled]) == ([], expected, [])
    assert _takers(event("triggers.endpoint.failing"), [endpoint._replace(fifo=True)]) == ([], [], expected)
    assert _takers(event("order.paid"), [endpoint])[0] == ([] if filters == ("triggers.endpoint.failing",) else [ENDPOINT])
