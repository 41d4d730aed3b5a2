"""Holding a system still while it is read for the last time: a mark before which no process begins, topics that take no record, and a look
at whoever is there all the same.

The mark is a topic, as that of a restore. Topics take no record because none is small enough: a producer is told that the record is
certainly not in the log. (Asking for more replicas than there are does not help: the broker counts no more than there could be.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka.admin import AdminClient

from projections.folds import FOLDS
from projections.log_reader import Place
from runtime import topics
from runtime.postgres import FOLDS_SCHEMA, connect
from runtime.settings import Settings
from runtime.sql import load
from schemas.topics import DELIVERY_GROUP, GROWING, RESTORING, Topic, declared, is_retry_topic
from triggers.backup.cut import committed_by
from triggers.grow.rewrite import NotReady

#: By the names of their connections (`runtime.postgres`); what reads or writes for long.
PROCESSES: Final = {
    "triggers-api": "triggers serve",
    "triggers-control": "triggers serve",
    "triggers-delivery": "triggers deliver",
    "triggers-project": "triggers process project",
    "triggers-rebuild": "triggers rebuild",
}
_REQUEST_TIMEOUT_S: Final = 30.0
_BYTES_MAX: Final = "max.message.bytes"
#: No batch of records is as small.
_NOTHING: Final = "1"


class Hold:
    """Of one move. `settings` are those of the system as it is; `later`: the mark with which an earlier run would have gone on.
    `put` before anything else, `lift` to let the system work again."""

    def __init__(self, settings: Settings, move_id: str, later: str | None) -> None:
        self._settings = settings
        self._mark = GROWING + move_id
        self._later = later
        self._client: AdminClient = topics.admin(settings.kafka)

    def put(self) -> None:
        """Raises `NotReady` where another restore or move is under way."""
        self._no_other()
        topics.mark(self._client, self._mark, replication_factor=self._settings.kafka.replication_factor)
        try:
            self._no_other()  # two commands that began at once both see each other, and neither goes on
        except NotReady:
            self.unmark()
            raise
        self._unmark_later()

    def _no_other(self) -> None:
        here = self._client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        if others := sorted(name for name in here if name.startswith(RESTORING) and name not in (self._mark, self._later)):
            raise NotReady(f"a restore or a move of another folder was begun here (topic {others[0]}): go on with that one, or give it up")

    def shut(self) -> None:
        """From here on no topic takes a record."""
        for topic in self._here():
            topics.configure(self._client, topic.name, {_BYTES_MAX: _NOTHING})

    def lift(self) -> None:
        """As it was. Raises `NotReady` where it is held by another restore or move, `confluent_kafka.KafkaException`."""
        self._no_other()
        for topic in self._here():
            topics.configure(self._client, topic.name, {_BYTES_MAX: str(topic.bytes_max)})
        self._unmark_later()
        self.unmark()

    def _unmark_later(self) -> None:
        if self._later is not None:
            topics.delete(self._client, [self._later])

    def unmark(self) -> None:
        topics.delete(self._client, [self._mark])

    def _here(self) -> list[Topic]:
        here = self._client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        return [topic for topic in declared(self._settings.delivery.delays_s) if topic.name in here]

    # -- who is there

    def nobody(self) -> None:
        """Raises `NotReady` while a group has members or a process of ours is connected to Postgres."""
        groups = sorted({group for topic in declared(self._settings.delivery.delays_s) for group in topic.groups})
        for group, count in topics.members(self._client, groups).items():
            if count:
                raise NotReady(
                    f"{count} workers of {group} are running: stop every process (one that was killed leaves after "
                    f"{self._settings.kafka.session_timeout_s:g} s)"
                )
        with connect(self._settings.postgres, application="cli", restoring=True) as connection:
            found = connection.execute(load("triggers", "connected"), (list(PROCESSES),)).fetchall()
        if commands := sorted({PROCESSES[name] for (name,) in found}):
            raise NotReady(f"connected to Postgres: {', '.join(f'`{one}`' for one in commands)}. Stop every process")

    def nothing_waits(self, ends: Mapping[Place, int]) -> None:
        """Raises `NotReady` for what has not been folded, and for retries that would stay behind. `ends`: of all topics."""
        left = 0
        with connect(self._settings.postgres, search_path=FOLDS_SCHEMA, application="cli", restoring=True) as connection:
            for topic in (fold.topic for fold in FOLDS):
                for number in range(self._settings.kafka.partitions):
                    row = connection.execute(load("projections", "standing"), (topic, number)).fetchone()
                    left += ends[topic, number] - (0 if row is None else int(row[0]))
        if left:
            raise NotReady(f"{left} records are not folded: start `triggers process project`, wait until that is done, and stop it")
        for name in self.other_delays():
            if left := self._left_to_deliver(name):
                raise NotReady(
                    f"{left} retries wait on {name}, which nobody reads: put its delay into TRIGGERS_DELIVERY__DELAYS_S, run "
                    "`triggers topics`, and wait until they are made"
                )

    def other_delays(self) -> list[str]:
        """Delay topics that no setting names any more."""
        here = self._client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        known = {topic.name for topic in declared(self._settings.delivery.delays_s)}
        return sorted(name for name in here if is_retry_topic(name) and name not in known)

    def _left_to_deliver(self, name: str) -> int:
        numbers = range(self._settings.kafka.partitions)
        places = [(name, number) for number in numbers]
        begins, ends = topics.begins(self._client, places), topics.ends(self._client, places)
        done = {(one.topic, one.partition): one.offset for one in committed_by(self._settings.kafka, DELIVERY_GROUP, [name], numbers)}
        return sum(ends[place] - max(begins[place], done.get(place, 0)) for place in places)

    def ends(self, places: Sequence[Place]) -> dict[Place, int]:
        return topics.ends(self._client, places)
