"""Taking the old system away, once its backup and what becomes of it are whole on the disk.

The control plane goes first, in one transaction that holds its tables, sees that they are what the backup says, and leaves the mark of the
restore in their place. If they are not, nothing has changed. After it there is no way but on; each step may be done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import Connection, sql

from runtime import topics
from runtime.postgres import CONTROL_SCHEMA
from runtime.settings import Settings
from runtime.sql import load
from schemas.topics import FIRST_GENERATION, declared, generation_topic
from triggers.backup import control, files
from triggers.backup.manifest import Manifest
from triggers.grow.control import lines, rows_sum
from triggers.grow.hold import PROCESSES, Hold
from triggers.grow.rewrite import NotReady

_REQUEST_TIMEOUT_S: Final = 30.0
#: Whoever holds a table of the control plane for longer is no request of ours.
_LOCK_TIMEOUT: Final = "10s"
_ANY_TABLE: Final = "audit_log"


def take_tables(settings: Settings, before: Path, made: Manifest, mark: str) -> None:
    """Every table, if the control plane is as `before` says; the schema `mark` stands for them. Raises `NotReady`, `psycopg.Error`: then
    nothing has changed."""
    with control.session(settings.postgres) as connection:
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        here = control.tables_of(connection)
        locked = sql.SQL(", ").join(sql.Identifier(CONTROL_SCHEMA, table) for table, _ in here)
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(locked))
        except psycopg.errors.LockNotAvailable:
            raise NotReady("somebody works with the control plane: stop every process and command, and run it again") from None
        _same(connection, here, before, made)
        if found := connection.execute(load("triggers", "connected"), (list(PROCESSES),)).fetchall():
            raise NotReady(f"`{PROCESSES[found[0][0]]}` was started meanwhile: stop it, and run this again")
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(mark)))
        control.drop_all(connection)


def _same(connection: Connection[Any], here: list[tuple[str, list[str]]], before: Path, made: Manifest) -> None:
    changed = "the control plane has changed since it was read ({}): nothing was replaced. Run it again"
    if here != [(table.table, table.columns) for table in made.tables]:
        raise NotReady(changed.format("its tables"))
    for table in made.tables:
        with connection.cursor() as cursor, cursor.copy(control.copy_out(table.table, table.columns)) as copy:
            found = rows_sum(lines(bytes(block) for block in copy))
        if found != rows_sum(lines(files.blocks(before, table))):
            raise NotReady(changed.format(table.table))


def tables_taken(settings: Settings, mark: str) -> bool:
    """Whether `take_tables` has come to its end, seen once nobody is in it any more: the server may still be at the commit of a command
    that was killed, or whose connection broke. Raises `NotReady` where it stays there, `psycopg.Error`."""
    with control.session(settings.postgres) as connection:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        connection.commit()
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(CONTROL_SCHEMA, _ANY_TABLE)))
        except psycopg.errors.LockNotAvailable:
            raise NotReady("the transaction that takes the tables away has no end yet (see pg_stat_activity): wait for it") from None
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            connection.rollback()
        return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (mark,)).fetchone() is not None


def end_sessions(settings: Settings) -> None:
    """Of whoever connected before the tables went. Who connects now is refused by the mark. Raises `psycopg.Error`."""
    with control.session(settings.postgres) as connection:
        connection.execute(load("triggers", "end_sessions"))


def take_log(settings: Settings, hold: Hold, generation: int) -> None:
    """Groups and topics of `generation`. Raises `confluent_kafka.KafkaException`, `TimeoutError`."""
    client = topics.admin(settings.kafka)
    every = declared(settings.delivery.delays_s)
    for group in sorted({group for topic in every for group in topic.groups}):
        _forget(client, group)
    names = [*(topic.name for topic in every), *hold.other_delays()]
    if generation > FIRST_GENERATION:
        names.append(generation_topic(generation))
    topics.delete(client, names)


def _forget(client: AdminClient, group: str) -> None:
    try:
        client.delete_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT_S)[group].result(_REQUEST_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
