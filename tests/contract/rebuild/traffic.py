"""What goes on while a rebuild runs: producers, live folds, and acks written as the API writes them, each in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from confluent_kafka import Message, Producer

from projections import acks
from projections.offsets import LOCK_CLASS
from runtime.postgres import connect
from runtime.settings import Settings
from runtime.sql import load
from schemas import codec
from schemas.events import Ack
from schemas.ids import EventId, OrganizationId
from schemas.keys import record_key
from schemas.topics import INBOX_ACKS
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import fetch, fold_live
from triggers.system import until


class Traffic:
    """`done` counts what each thread has done so far; the first failure of one is raised at the end."""

    def __init__(self, settings: Settings, corpus: Corpus) -> None:
        self._settings = settings
        self._corpus = corpus
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.done = {"produce": 0, "fold": 0, "ack": 0, "read": 0}
        #: What a reader saw that cannot be.
        self.mixtures: list[object] = []

    @contextmanager
    def running(self, *kinds: str) -> Iterator[Traffic]:
        work = {"produce": self._produce, "fold": lambda: fold_live(self._settings), "ack": self._ack}
        threads = [threading.Thread(target=self._run, args=(kind, work[kind]), daemon=True) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        if self._failure is not None:
            raise self._failure

    def more(self, kind: str, count: int = 2) -> None:
        """Until so much more was done."""
        target = self.done[kind] + count
        until(lambda: self.done[kind] >= target or self._failure is not None, 60, f"{count} more of {kind}")

    def _run(self, kind: str, work: Callable[[], object]) -> None:
        try:
            while not self._stop.is_set():
                work()
                self.done[kind] += 1
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self._failure = self._failure or error

    def _produce(self) -> None:
        """No faster than the live folds take it."""
        before = self._folded()
        self._corpus.produce(100)
        until(lambda: self._folded() > before or self._stop.is_set(), 60, "the live folds going on")

    def _folded(self) -> int:
        return int(fetch(self._settings, "SELECT coalesce(sum(next_offset), 0) FROM projection_offsets")[0][0])

    def _ack(self) -> None:
        rows = fetch(self._settings, "SELECT organization, mode, event_id FROM unacked ORDER BY random() LIMIT 1")
        if rows:
            ack_as_the_api(self._settings, *map(str, rows[0]))


def ack_as_the_api(settings: Settings, organization: str, mode: str, event_id: str) -> None:
    """Record first, then the row under the partition's lock; one that cannot be had in time is left to the fold (`projections.reading`)."""
    reports: list[Message] = []
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2", "enable.idempotence": True})
    ack = Ack(v=1, organization=OrganizationId(organization), mode="live" if mode == "live" else "test", ids=[EventId(event_id)])
    producer.produce(INBOX_ACKS, codec.encode(ack), record_key(ack.organization), on_delivery=lambda _, message: reports.append(message))
    assert producer.flush(20) == 0
    (report,) = reports
    partition, row = report.partition() or 0, acks.Row(organization, mode, event_id, report.offset() or 0, report.timestamp()[1])
    with suppress(psycopg.OperationalError), connect(settings.postgres, search_path="folds", application="test") as connection:
        connection.execute(load("projections", "lock_partition"), (LOCK_CLASS, partition))
        values = {name: [value] for name, value in row._asdict().items()} | {"partition": partition}
        connection.execute(load("projections", "upsert_acks"), values)
        connection.execute(load("projections", "delete_unacked"), values)
