"""What an organization is told of its endpoints when the owner of their partition changes: nothing is left out, nothing told as two."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from delivery.endpoints import Endpoint
from delivery.gates import Gate, Gates, Verdict
from delivery.health import Health
from runtime.settings import DeliverySettings
from schemas import codec, ids
from schemas.deliveries import Attempted, Retry

ENDPOINT = ids.endpoint_id(1, bytes(10))
ORGANIZATION = ids.organization_id(1, bytes(10))
EVENT = ids.event_id(1, bytes(10))
OPENED, CLOSED = Verdict(opened=True), Verdict(closed=True)
HOUR_MS = 3_600_000


class Postgres:
    """What is noted of the endpoint."""

    def __init__(self) -> None:
        self.failing_since_ms: int | None = None

    async def note_failing(self, _: Any, since_ms: int) -> None:
        self.failing_since_ms = since_ms if self.failing_since_ms is None else self.failing_since_ms

    async def note_recovered(self, _: Any) -> None:
        self.failing_since_ms = None


class World:
    """One endpoint whose owners come and go."""

    def __init__(self) -> None:
        self.now = 1_795_485_083_000
        self.postgres = Postgres()
        self.told: list[tuple[str, str]] = []

    def now_ms(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / 1000

    async def send(self, _topic: str, value: bytes, *_: Any) -> None:
        event = codec.ingested.decode(value)
        self.told.append((event.type.rpartition(".")[2], event.id))

    def owner(self) -> tuple[Health, Gate]:
        settings = DeliverySettings()
        endpoint = Endpoint(ENDPOINT, ORGANIZATION, "live", "http://x", None, (), failing_since_ms=self.postgres.failing_since_ms)
        context: Any = SimpleNamespace(clock=self, settings=settings, endpoints=self.postgres)
        outbox: Any = self
        return Health(context, outbox), Gates(settings, self, "g").of(endpoint)

    async def failed(self, owner: tuple[Health, Gate], verdict: Verdict = Verdict()) -> None:  # noqa: B008 - immutable
        await owner[0].learn(owner[1], "order.paid", self._attempted("failed", Retry(attempt=2, not_before_ms=1)), verdict)

    async def succeeded(self, owner: tuple[Health, Gate], verdict: Verdict = Verdict()) -> None:  # noqa: B008
        await owner[0].learn(owner[1], "order.paid", self._attempted("delivered", None), verdict)

    def _attempted(self, outcome: Any, following: Retry | None) -> Attempted:
        return Attempted(
            v=1, event_id=EVENT, organization=ORGANIZATION, mode="live", endpoint_id=ENDPOINT, attempt=1, outcome=outcome,
            started_at_ms=self.now, duration_ms=1, worker="w", next=following,
        )  # fmt: skip

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]


async def test_an_endpoint_that_fails_under_one_owner_and_whose_breaker_opens_under_the_next_is_told_of() -> None:
    world = World()
    await world.failed(world.owner())
    assert world.kinds() == []
    second = world.owner()
    await world.failed(second, OPENED)
    await world.failed(second, OPENED)
    assert world.kinds() == ["failing"]
    await world.succeeded(second, CLOSED)
    assert world.kinds() == ["failing", "recovered"]


async def test_what_two_owners_tell_of_the_same_happening_is_the_same_event() -> None:
    world = World()
    await world.failed(world.owner(), OPENED)
    world.now += 60_000
    await world.failed(world.owner(), OPENED)
    assert world.kinds() == ["failing", "failing"]
    assert len({event_id for _, event_id in world.told}) == 1, "which dedup drops"


async def test_what_dedup_would_not_recognise_any_more_is_not_told_again() -> None:
    world = World()
    await world.failed(world.owner(), OPENED)
    world.now += 24 * HOUR_MS
    await world.failed(world.owner(), OPENED)
    assert world.kinds() == ["failing"]


async def test_a_recovery_under_another_owner_is_told() -> None:
    world = World()
    await world.failed(world.owner(), OPENED)
    second = world.owner()
    await world.succeeded(second)
    assert world.kinds() == ["failing", "recovered"]
    await world.failed(second, OPENED)
    await world.succeeded(second, CLOSED)
    assert world.kinds() == ["failing", "recovered"] * 2
