"""Deliveries of encrypted events: opened for the POST only; of an erased one nothing is posted and nobody is to blame."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from access.envelopes import DataKey, attempt_name
from delivery import attempt
from delivery.context import Task
from delivery.deliver import Deliveries
from delivery.endpoints import Endpoint
from delivery.facts import Source
from delivery.fifo_steps import Steps
from delivery.gates import Gates
from delivery.journal import Journal
from delivery.opening import Opening, kept
from delivery.slots import Slots
from runtime.settings import DeliverySettings
from schemas import codec, ids
from schemas.deliveries import FIRST_ROUND, RESPONSE_BYTES_MAX, Attempted, Dead
from schemas.events import Ingested
from schemas.ids import EndpointId
from schemas.topics import DELIVERIES_ATTEMPTS

KEY = DataKey(ids.data_key_id(0, bytes(10)), bytes(32))
ORGANIZATION = ids.organization_id(0, bytes(10))
ENDPOINT = Endpoint(
    EndpointId("ep_01a20b40-0000-7000-8000-000000000001"), ORGANIZATION, "live", "http://x", None, (b"x" * 24,), schedule_s=(1.0,),
    fifo=True, fifo_block=True,
)  # fmt: skip
PAYLOAD = b'{ "a":  1.0 }'
EVENT = KEY.seal(
    Ingested(
        v=1, id=ids.event_id(5, bytes(10)), organization=ORGANIZATION, mode="live", type="a.b", received_at_ms=5, fingerprint="0" * 64,
        subject="jane", payload=msgspec.Raw(PAYLOAD),
    )
)  # fmt: skip
TASK = Task(EVENT, codec.encode(EVENT), ENDPOINT.id, 1, (), Source("events.accepted", 0), ())


class World:
    """A context with one endpoint, and what was posted and sent."""

    def __init__(self, keys: list[DataKey | None]) -> None:
        self.posted: list[bytes] = []
        self.sent: list[tuple[str, bytes]] = []
        self._clock: Any = SimpleNamespace(now_ms=lambda: 1_000, monotonic_s=lambda: 1.0)
        self._keys = keys
        self._opening = Opening(None, None, self._clock)  # type: ignore[arg-type]
        self._opening.key_of = self.key_of  # type: ignore[method-assign, assignment]
        settings = DeliverySettings()
        self.context: Any = SimpleNamespace(
            clock=self._clock, settings=settings, worker="w", endpoints=self, opening=self._opening, sender=self,
            guard=SimpleNamespace(check=lambda: None),
            gates=Gates(settings, self._clock, "t"), slots=Slots(4, 2, 1e9), delivered=lambda: None, reaches_others=lambda: True,
        )  # fmt: skip

    async def get(self, _: EndpointId, **__: bool) -> Endpoint:
        return ENDPOINT

    async def key_of(self, _: Ingested) -> DataKey | None:
        return self._keys.pop(0) if len(self._keys) > 1 else self._keys[0]

    async def post(self, _url: str, content: bytes, _headers: dict[str, str], _deadline_s: float) -> attempt.Result:
        self.posted.append(content)
        return attempt.Result(200, None, b"thank you, jane")

    def send(self, topic: str, value: bytes, _event: Ingested, _headers: Any) -> asyncio.Future[Any]:
        self.sent.append((topic, value))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(offset=len(self.sent)))
        return done

    @property
    def journalled(self) -> Attempted:
        ((topic, value),) = self.sent  # nothing else: no retry, no dead letter, no operational event
        assert topic == DELIVERIES_ATTEMPTS
        found = codec.journal.decode(value)
        assert isinstance(found, Attempted)
        return found


def of(world: World, kind: type[Deliveries]) -> Deliveries:
    return kind(world.context, 0, Journal(1_000), world)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Deliveries, Steps], ids=["free", "fifo"])
async def test_what_is_posted_is_what_was_sent_and_the_answer_is_journalled_sealed(kind: type[Deliveries]) -> None:
    world = World([KEY])
    await of(world, kind).step(TASK)
    (posted,) = world.posted
    assert PAYLOAD in posted
    assert json.loads(posted)["id"] == EVENT.id
    made = world.journalled
    assert made.response is not None
    assert "jane" not in made.response
    assert KEY.open_response(made.response, EVENT, attempt_name(ENDPOINT.id, "", 1)) == b"thank you, jane"


@pytest.mark.parametrize("keys", [[None], [KEY, None]], ids=["before", "while it waits for its turn"])
@pytest.mark.parametrize("kind", [Deliveries, Steps], ids=["free", "fifo that blocks"])
async def test_an_erased_event_is_posted_to_nobody_and_ends_without_a_letter(kind: type[Deliveries], keys: list[DataKey | None]) -> None:
    world = World(list(keys))
    deliveries = of(world, kind)
    if isinstance(deliveries, Steps):
        assert await deliveries.take(TASK) is None, "the endpoint would wait for it for ever"
    else:
        await deliveries.step(TASK)
    assert world.posted == []
    assert (world.journalled.error, world.journalled.next) == ("erased", Dead(reason="erased"))
    assert world.context.gates.of(ENDPOINT).failing_since_ms is None


async def test_an_altered_envelope_ends_its_delivery_and_holds_up_nothing() -> None:
    world = World([DataKey(KEY.id, bytes([1]) * 32)])
    await of(world, Deliveries).step(TASK)
    assert world.posted == []
    assert world.journalled.error == "erased"
    plain = msgspec.structs.replace(EVENT, payload=msgspec.Raw(b"1"))
    assert await Opening(None, None, None).key_of(plain) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, DeliverySettings().response_bytes_kept, RESPONSE_BYTES_MAX])
@pytest.mark.parametrize("key", [None, KEY], ids=["in clear", "sealed"])
def test_a_journal_record_with_as_much_of_an_answer_as_is_ever_kept_can_be_read(size: int, key: DataKey | None) -> None:
    """One that cannot is parked by the fold, and forgotten by the next owner of the partition, who would post again."""
    response = kept(b"<" * size, EVENT, attempt_name(ENDPOINT.id, FIRST_ROUND, 1), key)
    made = Attempted(
        v=1, event_id=EVENT.id, organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT.id, attempt=1, outcome="delivered",
        started_at_ms=1, duration_ms=1, worker="w", status=200, response=response,
    )  # fmt: skip
    assert codec.journal.decode(codec.encode(made)) == made
