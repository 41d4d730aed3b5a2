"""`triggers topics grow` on real servers: everything is there once and in order afterwards, and until then everything is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from projections.rebuild import Progress
from projections.trail import At
from runtime import topics
from runtime.clock import SYSTEM
from runtime.lifecycle import Unavailable
from runtime.postgres import connect
from runtime.settings import Settings
from runtime.topics import TopicMismatch
from schemas.topics import (
    DEDUP_APP,
    DELIVERIES_REQUESTS,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    LIFECYCLE,
    retry_topic,
)
from tests.contract.backup.growing import append, commit, marks, read, told, waits
from tests.contract.backup.rig import quiet
from tests.contract.rebuild.rig import execute, fetch, rebuild
from tests.grown_log import EVENTS, NEW, OLD
from triggers.drop import drop
from triggers.grow.move import grow, with_partitions
from triggers.grow.rewrite import NotReady
from triggers.processes import look_at_kafka, wait_for_kafka
from triggers.provision import make_tenant
from triggers.system import until


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
    with pytest.raises(TopicMismatch, match="has 7 partitions"):  # and a command would put its record there
        drop(small, SYSTEM, At(LIFECYCLE, 0, 0), organization=None, actor="test", why=None)
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
        with pytest.raises(TopicMismatch, match="a move to more partitions"):
            drop(small, SYSTEM, At(LIFECYCLE, 0, 0), organization=None, actor="test", why=None)
        assert read(small) == before.inbox
        make_tenant(small, "made meanwhile")

    with pytest.raises(NotReady, match="the control plane has changed since it was read"):
        grow(small, tmp_path / "move", NEW, SYSTEM, meanwhile)
    assert tried[0] is not None, "a record was taken that is in no backup"
    assert told(small)._replace(control=before.control) == before
    assert (waits(small), marks(small), append(small)) == ("", [], None)
