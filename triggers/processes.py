"""What each long-running process is made of. The only place where parts of different packages meet.

Every process begins the same way: logs, crash places, metrics, waiting for its servers with a named limit. It ends on SIGTERM or SIGINT
after finishing what it holds, or at once (`runtime.lifecycle.die`) where going on would lose or repeat work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import psycopg
import psycopg_pool
import uvloop
from confluent_kafka import KafkaException

from runtime import crashpoints, metrics, revisions, telemetry
from runtime.lifecycle import EXIT_UNAVAILABLE, StallGuard, Unavailable, die, first, settle_memory, stop_on_signals, wait_for
from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, pool
from runtime.settings import Settings
from runtime.telemetry import log
from runtime.topics import admin
from schemas.topics import RESTORING, declared, generation_of, names

_PROBE_TIMEOUT_S: Final = 2.0
#: A process that stood still for this part of its group's session may have been replaced already.
_STALL_SHARE: Final = 0.8

Main = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run(process: str, main: Main, settings: Settings) -> None:
    """Run one process until it is told to stop. Ends with status 69 and a line of the log if a server it needs never came."""
    telemetry.configure(process, settings.telemetry)
    crashpoints.arm_from_environment()
    if settings.telemetry.metrics_port is not None and main is not api:  # the API serves its own
        log.info("metrics.serving", port=metrics.serve(settings.telemetry.metrics_port, settings.telemetry.metrics_host))

    async def whole() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await main(settings, stop)

    try:
        uvloop.run(whole())
    except (Unavailable, KafkaException, psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
        die(str(error), EXIT_UNAVAILABLE)
    log.info("process.stopped")


def wait_for_kafka(settings: Settings) -> int:
    """Until every declared topic is there as the settings say and no restore is under way; returns the topics' generation.

    Raises `runtime.lifecycle.Unavailable`.
    """
    wanted = set(names(declared(settings.delivery.delays_s)))
    client = admin(settings.kafka)

    found: list[int] = []

    def probe() -> None:
        here = client.list_topics(timeout=_PROBE_TIMEOUT_S).topics
        _may_begin(settings, here)
        missing = wanted - here.keys()
        if missing:
            raise LookupError(f"topics are missing (run `triggers topics`): {', '.join(sorted(missing))}")
        found.append(generation_of(here))

    wait_for("Kafka", probe, settings.startup_timeout_s)
    log.info("topics.found", generation=found[-1], partitions=settings.kafka.partitions)
    return found[-1]


def look_at_kafka(settings: Settings) -> None:
    """For a process that begins without its servers: where Kafka answers, as `wait_for_kafka`, but for topics that are missing.

    Raises `runtime.lifecycle.Unavailable`.
    """
    client = admin(settings.kafka)

    def look() -> None:
        try:
            here = client.list_topics(timeout=_PROBE_TIMEOUT_S).topics
        except KafkaException as error:
            log.warning("kafka.not_looked_at", error=str(error))
            return
        _may_begin(settings, here)

    wait_for("Kafka", look, settings.startup_timeout_s)


def _may_begin(settings: Settings, here: Mapping[str, Any]) -> None:
    """Raises `LookupError`. Another number of partitions: an organization's records would be looked for, or put, where they are not."""
    if any(name.startswith(RESTORING) for name in here):
        raise LookupError(
            "a restore is not done, or a move to more partitions: the same command (`triggers restore`, `triggers topics grow`) goes on "
            "where it was stopped"
        )
    for name in names(declared(settings.delivery.delays_s)):
        if name in here and (count := len(here[name].partitions)) != settings.kafka.partitions:
            raise LookupError(f"topic {name} has {count} partitions, TRIGGERS_KAFKA__PARTITIONS says {settings.kafka.partitions}")


def wait_for_postgres(settings: Settings) -> None:
    """Until the database answers and is at the newest schema. Raises `runtime.lifecycle.Unavailable`."""

    def probe() -> None:
        current, newest = revisions.current(settings.postgres), revisions.newest()
        if current != newest:
            raise LookupError(f"the tables are at {current}, needed is {newest}: run `triggers migrate`")

    wait_for("PostgreSQL", probe, settings.startup_timeout_s)


def stall_guard(settings: Settings) -> StallGuard:
    return StallGuard(_STALL_SHARE * settings.kafka.session_timeout_s)


async def api(settings: Settings, stop: asyncio.Event) -> None:
    from ingest.server import serve  # noqa: PLC0415
    from triggers.api import make_api  # noqa: PLC0415

    await first(stop, look_at_kafka, settings)
    made = make_api(settings)
    settle_memory()
    await serve(made, settings.api, stop)


async def deliver(settings: Settings, stop: asyncio.Event) -> None:
    from access.secrets import Keyring  # noqa: PLC0415
    from delivery.worker import DeliveryWorker  # noqa: PLC0415
    from runtime.clock import SYSTEM  # noqa: PLC0415

    keyring = Keyring.from_setting(settings.master_keys.get_secret_value())
    await first(stop, wait_for_kafka, settings)
    await first(stop, wait_for_postgres, settings)
    connections = pool(settings.postgres, search_path=CONTROL_SCHEMA, application="delivery", size_max=2, checked=False)
    await connections.open()
    guard = stall_guard(settings)
    worker = DeliveryWorker(settings, SYSTEM, connections, keyring, guard)
    settle_memory()
    try:
        await worker.run(stop)
    finally:
        await connections.close()


async def dedup(settings: Settings, stop: asyncio.Event) -> None:
    from processors import apps, rebuild  # noqa: PLC0415 - Faust is heavy and only two processes need it
    from runtime.clock import SYSTEM  # noqa: PLC0415

    generation = await first(stop, wait_for_kafka, settings)
    await first(stop, rebuild.refill_changelog, settings, SYSTEM)
    guard = stall_guard(settings)
    await apps.run(apps.dedup_app(settings, guard, generation), guard, SYSTEM, stop, settings.processor.progress_timeout_s)


async def project(settings: Settings, stop: asyncio.Event) -> None:
    from processors import apps  # noqa: PLC0415
    from projections.folds import FOLDS  # noqa: PLC0415
    from projections.offsets import Fenced, fold_generation, load_offsets  # noqa: PLC0415
    from runtime.clock import SYSTEM  # noqa: PLC0415

    generation = await first(stop, wait_for_kafka, settings)
    fold_generation(generation)
    await first(stop, wait_for_postgres, settings)
    guard = stall_guard(settings)
    connections = pool(settings.postgres, search_path=FOLDS_SCHEMA, application="project", size_max=2)
    await connections.open()
    app = apps.project_app(
        settings, guard, generation, folds=FOLDS, pool=connections, load_offsets=load_offsets, fenced=Fenced, clock=SYSTEM
    )
    settle_memory()  # thousands of records wait in memory while they are folded: to look through them costs more than to decode them
    try:
        await apps.run(app, guard, SYSTEM, stop, settings.processor.progress_timeout_s)
    finally:
        await connections.close()
