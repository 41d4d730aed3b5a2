"""Erasure over the servers: its record goes to `lifecycle`, and what stands there is carried out again where it has to be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException
from psycopg import Connection

from access import epoch, erasure
from projections.log_reader import LogError
from projections.scan import Progress, scan
from runtime.append import append
from runtime.kafka import AppendError
from runtime.postgres import connect
from runtime.settings import Settings
from runtime.telemetry import log
from schemas import codec
from schemas.codec import STANDARD_HEADERS, CodecError
from schemas.keys import partition_of, record_key
from schemas.lifecycle import Erased
from schemas.topics import LIFECYCLE

_AGAIN_S: Final = 10.0


def tell_log(settings: Settings, record: Erased) -> None:
    """Raises `RuntimeError` where Kafka did not confirm it."""
    key = record_key(record.organization)
    try:
        append(
            settings.kafka, LIFECYCLE, codec.encode(record), key, headers=STANDARD_HEADERS,
            partition=partition_of(key, settings.kafka.partitions),
        )  # fmt: skip
    except AppendError as error:
        raise RuntimeError(f"the log did not confirm the erasure ({error.detail}), so {erasure.UNCONFIRMED}: do it again") from error


def reapply(settings: Settings, progress: Progress, *, restoring: bool = False) -> int:
    """Carry out every erasure on `lifecycle` again; returns how many keys were there. After a restore of the control plane they may be.

    `restoring`: within that restore. Raises as `projections.scan.scan`, and `psycopg.Error`.
    """
    with connect(settings.postgres, application="erasure", restoring=restoring) as connection:
        connection.autocommit = True
        return _reapply(settings, connection, progress)


async def reapply_at_start(settings: Settings) -> None:
    """`reapply` beside a process that begins, again and again until it was done: whoever put an old dump in its place need not think of it.

    A system without the topic, or that is being filled, is none of its business: the next start looks again.
    """
    while True:
        try:
            await asyncio.to_thread(reapply, settings, lambda *_: None)
            return
        except (psycopg.Error, KafkaException, LogError, RuntimeError) as error:
            log.warning("erasure.not_applied_yet", error=str(error).splitlines()[:1])
            await asyncio.sleep(_AGAIN_S)


def _reapply(settings: Settings, connection: Connection[Any], progress: Progress) -> int:
    gone, version = erasure.apply(connection, _records(settings, progress))
    if version is not None:
        epoch.tell_caches(settings.redis, version)
        log.warning("erasure.applied_again", keys=gone)
    return gone


def _records(settings: Settings, progress: Progress) -> Iterator[Erased]:
    for _, record in scan(settings, LIFECYCLE, range(settings.kafka.partitions), None, progress):
        try:
            entry = codec.lifecycle.decode(record.value)
        except CodecError:
            continue  # of a later version, or not ours
        if isinstance(entry, Erased):
            yield entry
