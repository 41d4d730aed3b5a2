"""Dedup under crashes, against a plain model.

What runs is the agent's real batch loop over a table, a producer and a consumer that live in memory and may die at any step. What may be
asserted: after any history, consumers of `events.accepted` that drop what is not above the highest ingested offset see exactly what a
sequential fold of the log by position would have forwarded, in order; `events.duplicates` says of each dropped event only what that fold
says; the changelog folds to the same markers. What may never be asserted: how many copies a crash leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from faust.types import TP
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec import Raw

from processors import agents
from processors.dedup import Marker, Touched, decode_marker, encode_marker, marker_of, newer
from schemas import codec, ids, keys
from schemas.events import Ingested
from schemas.topics import EVENTS_ACCEPTED, EVENTS_DUPLICATES

WINDOW_MS = 1_000
ORGANIZATION = ids.organization_id(1, bytes(10))
KEY = keys.record_key(ORGANIZATION)
PARTITIONS = 1
SOURCE = TP("events.ingested", 0)


class Crash(BaseException):
    """The process dies here."""


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Disk:
    """What survives a kill: the log, what the broker confirmed, the committed offset, the worker's folder."""

    log: list[Record] = field(default_factory=list)
    confirmed: dict[str, list[bytes]] = field(default_factory=lambda: {EVENTS_ACCEPTED: [], EVENTS_DUPLICATES: []})
    changelog: list[tuple[bytes, bytes]] = field(default_factory=list)
    committed: int = 0
    folder: dict[bytes, bytes] = field(default_factory=dict)


class Worker:
    """One life of a worker: the agent under test with everything around it in memory. Dies after `steps_left` steps."""

    def __init__(self, disk: Disk, agent: Callable[[Any, Any, Any], agents.Dedup]) -> None:
        self.disk = disk
        self.position = disk.committed
        self.pending: list[tuple[str, bytes, bytes]] = []
        self.steps_left = 1 << 60
        self.consumer = self  # the agent reaches it as app.consumer
        self.consumer_generation_id = 1
        self.agent = agent(self, self, self)

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left <= 0:
            raise Crash

    # -- the producer
    def produce(self, topic: str, value: bytes, key: bytes, partition: int, **_: Any) -> None:
        self.step()
        self.pending.append((topic, key, value))

    # -- the table
    def session(self, partition: int) -> Session:
        return Session(self)

    # -- the consumer
    def committed_past(self, tp: TP) -> int:
        return self.disk.committed

    async def commit_before(self, tp: TP, offset: int) -> bool:
        self.flush()
        self.step()
        self.disk.committed = max(self.disk.committed, offset)
        self.step()
        return True

    def flush(self) -> None:
        for topic, key, value in self.pending:
            self.confirm(topic, key, value)
        self.pending.clear()

    def confirm(self, topic: str, key: bytes, value: bytes) -> None:
        if topic == "changelog":
            self.disk.changelog.append((key, value))
        else:
            self.disk.confirmed[topic].append(value)

    def process(self, count: int) -> None:
        batch = self.disk.log[self.position : self.position + count]
        if batch:
            assert finish(self.agent._batch(SOURCE, batch, lambda: True))  # type: ignore[arg-type]
            self.position += len(batch)

    def commit(self) -> None:
        self.flush()
        self.step()
        self.disk.committed = max(self.disk.committed, self.position)

    def die(self, sent: float) -> None:
        """Of what waits in the producer, a prefix of each topic still reaches the broker: gapless, but topics are independent."""
        for topic in (EVENTS_ACCEPTED, EVENTS_DUPLICATES, "changelog"):
            waiting = [p for p in self.pending if p[0] == topic]
            for entry in waiting[: round(sent * len(waiting))]:
                self.confirm(*entry)


class Session:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.own: dict[bytes, Marker] = {}

    def get(self, key: bytes) -> Marker | None:
        if key in self.own:
            return self.own[key]
        value = self.worker.disk.folder.get(key)
        return None if value is None else decode_marker(value)

    def put(self, key: bytes, marker: Marker) -> None:
        self.own[key] = marker
        self.worker.produce("changelog", encode_marker(marker), key, 0)

    def write(self) -> None:
        self.worker.step()
        self.worker.disk.folder.update({key: encode_marker(marker) for key, marker in self.own.items()})
        self.own.clear()
        self.worker.step()


def finish(coroutine: Coroutine[Any, Any, bool]) -> bool:
    """Run a coroutine that never really waits: everything it awaits here lives in memory."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return bool(done.value)
    raise AssertionError("the agent waited for something")


def product(app: Any, table: Any, outputs: Any) -> agents.Dedup:
    return agents.Dedup(app, table, outputs, partitions=PARTITIONS, window_ms=WINDOW_MS)


def fold(log: list[Record]) -> tuple[list[int], dict[int, tuple[str, str]], dict[bytes, int]]:
    """The model: forwarded offsets in order, what each dropped event lost to, the offset holding each key. Shares no code with dedup."""
    forwarded: list[int] = []
    lost: dict[int, tuple[str, str]] = {}
    held: dict[bytes, tuple[int, str, int, str]] = {}
    for record in log:
        event = codec.ingested.decode(record.value)
        if event.dedup_key is None:
            forwarded.append(record.offset)
            continue
        key = keys.table_key(event.organization, event.mode, event.dedup_key)
        if key in held:
            _, event_id, at, fingerprint = held[key]
            if event_id == event.id:
                continue
            if record.timestamp < at + WINDOW_MS:
                lost[record.offset] = ("duplicate" if fingerprint == event.fingerprint else "conflict", event_id)
                continue
        held[key] = (record.offset, event.id, record.timestamp, event.fingerprint)
        forwarded.append(record.offset)
    return forwarded, lost, {key: value[0] for key, value in held.items()}


class DedupMachine(RuleBasedStateMachine):
    agent = staticmethod(product)

    @initialize()
    def start(self) -> None:
        self.disk = Disk()
        self.now = 10_000
        self.worker = Worker(self.disk, self.agent)
        self.past: list[Ingested] = []

    @rule(
        key=st.sampled_from(["a", "b", None]),
        body=st.sampled_from([b"1", b"2"]),
        wait_ms=st.sampled_from([0, 1, 400, 999, 1_000, 1_001, -5]),
    )
    def append(self, key: str | None, body: bytes, wait_ms: int) -> None:
        event = Ingested(
            v=1,
            id=ids.event_id(len(self.disk.log), bytes(10)),
            organization=ORGANIZATION,
            mode="live",
            type="t",
            received_at_ms=0,
            fingerprint=keys.fingerprint("t", None, body),
            dedup_key=None if key is None else keys.native_dedup_key(key),
            payload=Raw(body),
        )
        self.past.append(event)
        self._append(event, wait_ms)

    @precondition(lambda self: any(e.dedup_key for e in self.past))
    @rule(data=st.data(), wait_ms=st.sampled_from([0, 1, 999, 5_000]))
    def api_appends_again(self, data: st.DataObject, wait_ms: int) -> None:
        """After an unknown outcome the API appends under the same id; Redis lets it do so only while no later event holds the key."""
        latest = {e.dedup_key: e for e in self.past if e.dedup_key}
        self._append(data.draw(st.sampled_from(list(latest.values()))), wait_ms)

    def _append(self, event: Ingested, wait_ms: int) -> None:
        self.now += wait_ms
        self.disk.log.append(Record(len(self.disk.log), self.now, KEY, codec.encode(event)))

    @rule(count=st.integers(1, 6))
    def process(self, count: int) -> None:
        self.worker.process(count)

    @rule()
    def commit(self) -> None:
        self.worker.commit()

    @rule(count=st.integers(1, 6), steps=st.integers(1, 25), sent=st.floats(0, 1), folder=st.sampled_from(["kept", "lost"]))
    def crash(self, count: int, steps: int, sent: float, folder: str) -> None:
        self.worker.steps_left = steps
        try:
            self.worker.process(count)
            self.worker.commit()
        except Crash:
            pass
        self.worker.die(sent)
        if folder == "lost":  # a takeover by another worker is the same: its folder is built from the changelog
            rebuilt: dict[bytes, Marker] = {}
            for key, value in self.disk.changelog:
                rebuilt[key] = newer(rebuilt.get(key), decode_marker(value))
            self.disk.folder = {key: encode_marker(marker) for key, marker in rebuilt.items()}
        self.worker = Worker(self.disk, self.agent)

    @invariant()
    def nothing_is_said_that_the_fold_does_not_say(self) -> None:
        forwarded, lost, _ = fold(self.disk.log)
        for value in self.disk.confirmed[EVENTS_ACCEPTED]:
            assert codec.accepted.decode(value).ingested.offset in forwarded
        for value in self.disk.confirmed[EVENTS_DUPLICATES]:
            duplicate = codec.duplicate.decode(value)
            assert lost.get(duplicate.ingested.offset) == (duplicate.kind, duplicate.original_id)

    def teardown(self) -> None:
        if not hasattr(self, "disk"):
            return
        self.worker.process(len(self.disk.log))
        self.worker.commit()
        forwarded, lost, held = fold(self.disk.log)
        seen: list[int] = []
        for value in self.disk.confirmed[EVENTS_ACCEPTED]:
            offset = codec.accepted.decode(value).ingested.offset
            if not seen or offset > seen[-1]:
                seen.append(offset)
        assert seen == forwarded
        told = {codec.duplicate.decode(value).ingested.offset for value in self.disk.confirmed[EVENTS_DUPLICATES]}
        assert told == set(lost)
        rebuilt: dict[bytes, Marker] = {}
        for key, value in self.disk.changelog:
            rebuilt[key] = newer(rebuilt.get(key), decode_marker(value))
        assert {key: marker.offset for key, marker in rebuilt.items()} == held


MACHINE_SETTINGS = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def test_no_crash_makes_dedup_lose_double_or_misjudge_an_event() -> None:
    run_state_machine_as_test(DedupMachine, settings=MACHINE_SETTINGS)


class Naive(agents.Dedup):
    """Stock wisdom: a key that is in the table was seen, so drop it."""

    async def _batch(self, tp: TP, batch: Any, current: Callable[[], bool]) -> bool:
        session = self._table.session(tp.partition)
        for record in batch:
            event = self._read(tp, record)
            if event is None:
                continue
            if event.dedup_key is not None:
                key = keys.table_key(event.organization, event.mode, event.dedup_key)
                if session.get(key) is not None:
                    continue
                session.put(key, marker_of(event, tp.partition, record.offset, record.timestamp))
            self._forward(tp, record)
        session.write()
        return True


class OverwritesAtOnce(agents.Dedup):
    """The marker rules without the commit before an overwrite."""

    async def _batch(self, tp: TP, batch: Any, current: Callable[[], bool]) -> bool:
        self._touched[tp.partition] = Never()
        return await super()._batch(tp, batch, current)


class Never(Touched):
    def needs_commit(self, key: bytes, committed: int) -> bool:
        return False


class ForgetsTheChangelog(agents.Dedup):
    """A redelivered first record is forwarded again, but its marker is not written again."""

    def _effect(self, session: Any, *args: Any) -> None:
        if args[-1] == "redelivered":
            self._forward(args[0], args[1])
        else:
            super()._effect(session, *args)


@pytest.mark.parametrize("mutant", [Naive, OverwritesAtOnce, ForgetsTheChangelog])
def test_the_machine_catches(mutant: type[agents.Dedup]) -> None:
    class Mutated(DedupMachine):
        agent = staticmethod(lambda app, table, outputs: mutant(app, table, outputs, partitions=PARTITIONS, window_ms=WINDOW_MS))

    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(Mutated, settings=settings(MACHINE_SETTINGS, max_examples=2_000, phases=[Phase.generate]))
