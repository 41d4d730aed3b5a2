"""`triggers topics grow` on real servers: everything is there once and in order afterwards, and until then everything is as it was."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg_pool
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from delivery.journal import Checkpoint, encode_checkpoint
from projections.offsets import fold_generation
from projections.rebuild import Progress
from runtime import migrations, topics
from runtime.clock import SYSTEM
from runtime.lifecycle import Unavailable
from runtime.postgres import FOLDS_SCHEMA, connect, pool
from runtime.settings import Settings
from runtime.topics import TopicMismatch
from schemas import codec
from schemas.topics import (
    DEDUP_APP,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_REQUESTS,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    FIRST_GENERATION,
    RESTORING,
    retry_topic,
)
from tests import runbooks
from tests.contract.backup.rig import consumer_of, control_of, log_of, quiet, stands
from tests.contract.backup.test_backup import command, environment_of
from tests.contract.rebuild.rig import execute, fetch, fold_live, rebuild
from tests.grown_log import EVENTS, NEW, OLD, RETRY, log
from triggers.grow.move import grow, with_partitions
from triggers.grow.rewrite import NotReady
from triggers.processes import look_at_kafka, wait_for_kafka
from triggers.provision import make_endpoint, make_tenant
from triggers.system import until

#: Where the command is killed, and whether what was there is replaced by then.
PLACES = {
    "grow.marked": False,
    "backup.after_segment:3": False,
    "grow.saved": False,
    "grow.rewritten": False,
    "grow.replacing": False,
    "grow.no_tables": True,
    "grow.no_topics": True,
    "grow.emptied": True,
    "restore.marked": True,
    "restore.after_partition:9": True,
    "restore.after_control": True,
    "restore.after_folds": True,
    "restore.before_end": True,
}
AGE_MS = 60_000
#: Retries of each partition that are made.
MADE = 30
ROWS = "SELECT * FROM inbox ORDER BY organization, mode, generation, position"


class Told(NamedTuple):
    """What a system says, whatever its partitions are. By topic and key: what its records say, each once, in order."""

    inbox: list[tuple[Any, ...]]
    records: dict[tuple[str, bytes | None], list[str]]
    retries: list[str]
    control: dict[str, list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def _first_generation_afterwards() -> Iterator[None]:
    yield
    fold_generation(FIRST_GENERATION)


@pytest.fixture
def small(target: Settings) -> Settings:
    """A system of two partitions at rest."""
    settings = with_partitions(target, OLD)
    migrations.migrate(settings.postgres)
    topics.ensure(settings.kafka, settings.delivery.delays_s)
    tenant = make_tenant(settings, "grown")
    make_endpoint(settings, tenant.organization, "http://localhost:9/grown")
    plain = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for (topic, partition), records in log(SYSTEM.now_ms() - AGE_MS).items():
        for one in records:
            plain.produce(topic, one.value, one.key, partition, timestamp=one.timestamp_ms, headers=list(one.headers))
    assert plain.flush(30) == 0
    ends = topics.ends(topics.admin(settings.kafka), [(t, n) for t in (EVENTS_INGESTED, EVENTS_ACCEPTED) for n in range(OLD)])
    for n in range(OLD):
        checkpoint = Checkpoint(h=ends[EVENTS_INGESTED, n] - 1, t={DELIVERIES_ATTEMPTS: 40, RETRY: MADE + 1})
        commit(settings, DEDUP_APP, TopicPartition(EVENTS_INGESTED, n, ends[EVENTS_INGESTED, n]))
        accepted = TopicPartition(EVENTS_ACCEPTED, n, ends[EVENTS_ACCEPTED, n], metadata=encode_checkpoint(checkpoint))
        commit(settings, DELIVERY_GROUP, accepted, TopicPartition(RETRY, n, MADE))
    fold_live(settings)
    return settings


def commit(settings: Settings, group: str, *offsets: TopicPartition) -> None:
    with closing(consumer_of(settings, group)) as consumer:
        consumer.commit(offsets=list(offsets), asynchronous=False)


def told(settings: Settings) -> Told:
    records: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    retries, at = [], stands(settings)
    for (topic, partition), found in log_of(settings).items():
        for one in found:
            if topic in (EVENTS_INGESTED, EVENTS_REJECTED):
                records[topic, one.key].append(repr((one.key, one.value)))
            elif topic == EVENTS_ACCEPTED:
                event = str(codec.accepted.decode(one.value).event.id)
                if event not in records[topic, one.key]:  # a copy that a crash left counts for nothing
                    records[topic, one.key].append(event)
            elif topic == DELIVERIES_ATTEMPTS:
                records[topic, one.key].append(str(codec.journal.decode(one.value).event_id))
            elif topic == RETRY and one.offset >= at[DELIVERY_GROUP, RETRY, partition][0]:
                retries.append(repr(one.value))
    control = control_of(settings)
    del control["audit_log"]
    return Told(fetch(settings, ROWS), dict(records), sorted(retries), control)


def read(settings: Settings) -> list[tuple[Any, ...]] | None:
    """The inbox as a process reads it; None: it gets no connection."""

    async def rows() -> list[tuple[Any, ...]] | None:
        hasty = settings.postgres.model_copy(update={"connect_timeout_s": 1.0})
        connections = pool(hasty, search_path=FOLDS_SCHEMA, application="api")
        await connections.open()
        try:
            async with connections.connection() as connection:
                return await (await connection.execute(ROWS.encode())).fetchall()
        except psycopg_pool.PoolTimeout:
            return None
        finally:
            await connections.close()

    return asyncio.run(rows())


def append(settings: Settings) -> KafkaError | None:
    """One record more, as the API would; what the broker says of it."""
    answers: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "message.timeout.ms": 2_000})
    producer.produce(EVENTS_INGESTED, b"late", b"k", 0, on_delivery=lambda error, _: answers.append(error))
    producer.flush(20)
    return answers[0]


def marks(settings: Settings) -> list[str]:
    client = topics.admin(settings.kafka)
    return [name for name in client.list_topics(timeout=20).topics if name.startswith(RESTORING)]


def waits(settings: Settings) -> str:
    """What a process that begins says; empty: it begins."""
    try:
        wait_for_kafka(settings.model_copy(update={"startup_timeout_s": 0.2}))
    except Unavailable as error:
        return str(error)
    return ""


def test_a_grown_system_holds_every_event_once_in_order_under_its_old_position(small: Settings, tmp_path: Path) -> None:
    before = told(small)
    assert len(before.inbox) > EVENTS // 4
    done = grow(small, tmp_path, NEW, SYSTEM, quiet)
    assert (done.generation, done.state.old, done.state.new, done.state.inbox[0]) == (2, OLD, NEW, len(before.inbox))
    grown = with_partitions(small, NEW)
    assert told(grown) == before
    assert rebuild(grown, verify_only=True).equal
    assert wait_for_kafka(grown) == 2
    assert "has 7 partitions, TRIGGERS_KAFKA__PARTITIONS says 2" in waits(small)
    with pytest.raises(Unavailable, match="has 7 partitions"):  # the API, too, would look in the wrong places
        look_at_kafka(small.model_copy(update={"startup_timeout_s": 0.2}))
    assert append(grown) is None
    again = grow(grown, tmp_path, NEW, SYSTEM, quiet)
    assert (again.records, again.state.phase) == (0, "done")
    assert fetch(grown, "SELECT count(*) FROM control.audit_log WHERE action = 'topics.growing'") == [(1,)]


@contextmanager
def not_read(settings: Settings) -> Iterator[str]:
    (end,) = topics.ends(topics.admin(settings.kafka), [(EVENTS_INGESTED, 0)]).values()
    commit(settings, DEDUP_APP, TopicPartition(EVENTS_INGESTED, 0, end - 2))
    yield "dedup has 2 records of events.ingested to go"
    commit(settings, DEDUP_APP, TopicPartition(EVENTS_INGESTED, 0, end))


@contextmanager
def not_folded(settings: Settings) -> Iterator[str]:
    move = "UPDATE projection_offsets SET next_offset = next_offset + %s WHERE topic = %s AND partition = 0"
    execute(settings, move, -1, EVENTS_ACCEPTED)
    yield "1 records are not folded"
    execute(settings, move, 1, EVENTS_ACCEPTED)


@contextmanager
def a_delay_nobody_reads(settings: Settings) -> Iterator[str]:
    client, name = topics.admin(settings.kafka), retry_topic(0.321)
    topics.create(client, name, partitions=OLD, replication_factor=1, config={})
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(name, b"x", b"k", 0)
    assert producer.flush(20) == 0
    yield f"1 retries wait on {name}"
    topics.delete(client, [name])


@contextmanager
def a_worker(settings: Settings) -> Iterator[str]:
    worker = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP, "enable.auto.commit": False})
    with closing(worker):
        worker.subscribe([DELIVERIES_REQUESTS])
        until(lambda: worker.poll(0.2) is None and bool(worker.assignment()), 30, "the worker coming into its group")
        yield "1 workers of delivery are running"


@contextmanager
def an_api(settings: Settings) -> Iterator[str]:
    """What it holds of Postgres while nobody asks it for anything."""
    with connect(settings.postgres, application="api"):
        yield "connected to Postgres: `triggers serve`"


def test_a_system_that_is_not_at_rest_is_refused_and_goes_on_as_it_was(small: Settings, tmp_path: Path) -> None:
    before = told(small)
    for spoilt in (not_read, not_folded, a_delay_nobody_reads, a_worker, an_api):
        with spoilt(small) as said, pytest.raises(NotReady, match=said):
            grow(small, tmp_path / "move", NEW, SYSTEM, quiet)
        assert (waits(small), marks(small)) == ("", []), spoilt
    tried: list[KafkaError | None] = []

    def meanwhile(progress: Progress) -> None:
        """Whatever others may do while the command reads."""
        if progress.stage != "rewrite" or tried:
            return
        tried.append(append(small))
        with pytest.raises(NotReady, match="was begun here"):
            grow(small, tmp_path / "another", NEW, SYSTEM, quiet)
        with pytest.raises(NotReady, match="another command works in"):
            grow(small, tmp_path / "move", NEW, SYSTEM, quiet)
        assert "a move to more partitions" in waits(small)
        assert read(small) == before.inbox
        make_tenant(small, "made meanwhile")

    with pytest.raises(NotReady, match="the control plane has changed since it was read"):
        grow(small, tmp_path / "move", NEW, SYSTEM, meanwhile)
    assert tried != [None], "a record was taken that is in no backup"
    assert told(small)._replace(control=before.control) == before
    assert (waits(small), marks(small), append(small)) == ("", [], None)


@pytest.mark.verify
@pytest.mark.timeout(600)
def test_killed_anywhere_the_same_command_goes_on_and_nobody_reads_a_mixture(small: Settings, tmp_path: Path) -> None:
    before, crash, directory = told(small), tmp_path / "crash", tmp_path / "move"
    arguments = ("topics", "grow", directory, "--partitions", str(NEW), "--json")
    for place, replaced in PLACES.items():
        crash.write_text(place)
        killed = command(small, *arguments, crash=crash)
        assert killed.returncode == -9, (place, killed.stderr)
        assert not crash.exists(), place
        assert "a restore is not done" in waits(small), place
        with pytest.raises(TopicMismatch, match="is not done"):  # topics of the old number would be in the way
            topics.ensure(small.kafka, small.delivery.delays_s)
        found = read(small)
        # Whole before, whole after; between them nobody is let in.
        assert found == before.inbox if not replaced or place == "restore.before_end" else found is None, place
        given_up = command(small, "topics", "grow", directory, "--give-up") if replaced else None
        assert given_up is None or (given_up.returncode == 1 and "too late" in given_up.stderr), place
    crash.write_text("grow.restored")
    assert command(small, *arguments, crash=crash).returncode == -9
    grown = with_partitions(small, NEW)
    assert (waits(grown), read(grown)) == ("", before.inbox)
    done = command(small, *arguments)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["generation"], json.loads(done.stdout)["resumed"]) == (2, True)
    assert told(grown) == before
    assert rebuild(grown, verify_only=True).equal
    assert marks(grown) == []


@pytest.mark.verify
@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["grow.saved", "grow.replacing"])
def test_a_move_that_was_killed_is_given_up_as_if_it_had_not_been_begun_and_begun_again(
    place: str, small: Settings, tmp_path: Path
) -> None:
    before, crash, directory = told(small), tmp_path / "crash", tmp_path / "move"
    crash.write_text(place)
    assert command(small, "topics", "grow", directory, "--partitions", str(NEW), crash=crash).returncode == -9
    assert append(small) is not None
    done = command(small, "topics", "grow", directory, "--give-up")
    assert done.returncode == 0, done.stderr
    assert (waits(small), marks(small), told(small)) == ("", [], before)
    assert append(small) is None
    ends = topics.ends(topics.admin(small.kafka), [(EVENTS_INGESTED, n) for n in range(OLD)])
    commit(small, DEDUP_APP, *(TopicPartition(topic, n, end) for (topic, n), end in ends.items()))
    assert command(small, "topics", "grow", directory, "--partitions", str(NEW + 1)).returncode == 0
    grown = told(with_partitions(small, NEW + 1))
    assert grown.inbox == before.inbox
    assert len(grown.records) == len(before.records) + 1


@pytest.mark.verify
@pytest.mark.timeout(300)
def test_partitions_grow_again_and_again(small: Settings, tmp_path: Path) -> None:
    before = told(small)
    for generation, partitions in ((2, 3), (3, 11)):
        done = grow(small, tmp_path / str(partitions), partitions, SYSTEM, quiet)
        assert done.generation == generation
        grown = with_partitions(small, partitions)
        assert told(grown) == before
        assert wait_for_kafka(grown) == generation


@pytest.mark.verify
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", runbooks.GROWN)
def test_every_command_of_the_runbook_of_growing_prints_what_it_says(page: str, small: Settings, tmp_path: Path) -> None:
    environment = {**environment_of(small), "TRIGGERS_KAFKA__PARTITIONS": str(OLD), "MOVE": str(tmp_path / "move")}
    before = told(small)
    runbooks.run_page(page, environment, tmp_path)
    assert told(with_partitions(small, 12)) == before
