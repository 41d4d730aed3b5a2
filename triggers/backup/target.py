"""Where a backup is restored to: that it is empty, and the mark that says a restore is not done.

The mark is a topic, made before anything else and deleted last. Every process that waits for its topics sees it and does not begin. Its
name holds the digest of the backup, so only a restore of the same backup goes on from there. Postgres has a mark of its own, a schema, so
that a half-filled database is known for one as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import psycopg
import redis
from confluent_kafka.admin import AdminClient
from psycopg import sql

from projections.log_reader import Place
from runtime import topics
from runtime.postgres import RESTORING_SCHEMA
from runtime.settings import Settings
from schemas.topics import FIRST_GENERATION, RESTORING, Topic, declared, generation_topic
from triggers.backup import control
from triggers.backup.cut import committed_by
from triggers.backup.manifest import Manifest

_REQUEST_TIMEOUT_S: Final = 30.0
_REDIS_TIMEOUT_S: Final = 5.0
_DIGITS: Final = 16


class NotEmpty(RuntimeError):
    """There is something where a backup should go. The text says what was found."""


def _places(known: Sequence[Topic], partitions: int) -> Iterator[Place]:
    return ((topic.name, number) for topic in known for number in range(partitions))


class Target:
    """The system of some settings. `begin` before anything is written, `end` when all is."""

    def __init__(self, settings: Settings, digest: str) -> None:
        self._settings = settings
        self._mark = RESTORING + digest[:_DIGITS]
        self._schema = RESTORING_SCHEMA + digest[:_DIGITS]
        self._client: AdminClient = topics.admin(settings.kafka)

    def begin(self, manifest: Manifest, *, same_log: bool = False) -> bool:
        """Put the marks, unless they are there. Whether a restore of this backup had begun before. `same_log`: what Redis holds is of the
        events of this backup, and stays. Raises `NotEmpty`."""
        there = topics.restoring(self._client)
        if there not in (None, self._mark):
            raise NotEmpty(f"a restore of another backup was begun here (topic {there}): empty the servers, or restore that one")
        generation = topics.generation(self._client)
        if generation not in (FIRST_GENERATION, manifest.generation):
            raise NotEmpty(f"topics of generation {generation} were here: delete {generation_topic(generation)}")
        self._no_members(manifest)
        if there is None:
            self._no_records()
        if not self.database_marked() and not self._done():
            self._no_rows()
        if not same_log:
            self._no_reservations()
        if there is None:
            self.mark_log()
        if manifest.generation > FIRST_GENERATION:
            topics.mark(self._client, generation_topic(manifest.generation), replication_factor=self._settings.kafka.replication_factor)
        if not self._done():
            with control.session(self._settings.postgres) as connection:
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._schema)))
        return there is not None

    def mark_log(self) -> None:
        """From here on no process begins."""
        topics.mark(self._client, self._mark, replication_factor=self._settings.kafka.replication_factor)

    def unmark_database(self, connection: psycopg.Connection[object]) -> None:
        """In the transaction with which the database is done."""
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(self._schema)))

    def end(self) -> None:
        topics.delete(self._client, [self._mark])

    @property
    def database_done(self) -> bool:
        return self._done()

    # -- what is there

    def database_marked(self) -> bool:
        """Whether the database is being filled from this backup. Raises `psycopg.Error`."""
        with control.session(self._settings.postgres) as connection:
            return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (self._schema,)).fetchone() is not None

    def _done(self) -> bool:
        """The database was filled from this backup, and only the mark of the log is left."""
        if self.database_marked():
            return False
        with control.session(self._settings.postgres) as connection:
            try:
                found = connection.execute(
                    "SELECT FROM control.audit_log WHERE action = 'backup.restored' AND detail ->> 'mark' = %s", (self._mark,)
                )
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                return False
            return found.fetchone() is not None

    @property
    def mark(self) -> str:
        return self._mark

    @property
    def schema(self) -> str:
        """The mark of the database."""
        return self._schema

    def _no_records(self) -> None:
        kafka = self._settings.kafka
        here = self._client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        known = [topic for topic in declared(self._settings.delivery.delays_s) if topic.name in here]
        for topic in known:
            if len(here[topic.name].partitions) != kafka.partitions:
                raise NotEmpty(f"topic {topic.name} is there with another number of partitions than TRIGGERS_KAFKA__PARTITIONS: delete it")
        for (name, partition), end in topics.ends(self._client, _places(known, kafka.partitions)).items():
            if end:
                raise NotEmpty(
                    f"{name}[{partition}] has had {end} records: a backup is restored to empty servers, so that offsets come out the same"
                )
        for group in sorted({group for topic in known for group in topic.groups}):
            for one in committed_by(kafka, group, [topic.name for topic in known if group in topic.groups], range(kafka.partitions)):
                if one.offset:
                    raise NotEmpty(
                        f"group {group} stands at {one.offset} of {one.topic}[{one.partition}]: delete the group, and begin again"
                    )

    def _no_members(self, manifest: Manifest) -> None:
        for group, count in topics.members(self._client, sorted({one.group for one in manifest.committed})).items():
            if count:
                raise NotEmpty(
                    f"{count} workers of {group} are running: stop all processes (one that was killed leaves after "
                    f"{self._settings.kafka.session_timeout_s:g} s)"
                )

    def _no_rows(self) -> None:
        if found := control.rows_found(self._settings.postgres):
            listed = ", ".join(f"{table} ({count})" for table, count in found.items())
            raise NotEmpty(f"the database holds rows: {listed}. Give an empty database")

    def _no_reservations(self) -> None:
        """Redis remembers keys of events that are not in the log any more, and would refuse them."""
        client = redis.Redis.from_url(self._settings.redis.url.get_secret_value(), socket_timeout=_REDIS_TIMEOUT_S)
        try:
            if next(iter(client.scan_iter("triggers:idem:*", count=1_000)), None) is not None:
                raise NotEmpty("Redis holds idempotency keys of another log, which would be refused: empty it (FLUSHDB)")
        except redis.RedisError as error:
            raise NotEmpty(f"Redis cannot be seen to be empty ({error}): is it running, and is TRIGGERS_REDIS__URL right?") from None
        finally:
            client.close()
