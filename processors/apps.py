"""The two Faust apps and how a process runs one: `dedup` and `project`.

Faust is given no choices: no web server, no topics of its own, no leader topic, no standbys, static membership per worker slot, its own
data folder per slot. Everything a worker must not go on after ends the process (see `runtime.lifecycle.die`); a supervisor restarts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import faust

from processors.agents import Dedup
from processors.outputs import Outputs
from processors.progress import Progress
from processors.project import Fold, LoadOffsets, Project
from processors.tables import MarkerTable, declare
from processors.transport import Batch, install
from runtime.clock import Clock
from runtime.lifecycle import EXIT_FATAL, EXIT_STALLED, StallGuard, die, leave
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.telemetry import log
from schemas.topics import DEDUP_APP, EVENTS_INGESTED, FIRST_GENERATION, PROJECT_APP

_TICK_S: Final = 0.25
_STOP_TIMEOUT_S: Final = 20.0
#: Records waiting per agent, in batches: the rest waits at the broker.
_QUEUED_RECORDS_MAX: Final = 8_000
_FETCH_BYTES_MAX: Final = 4 << 20


def make_app(app_id: str, settings: Settings, guard: StallGuard, generation: int) -> tuple[Any, Outputs]:
    """A Faust app with our transport. `app_id` is the consumer group. Tables of another topic generation are left where they are: their
    offsets are not those of this changelog."""
    processor, kafka = settings.processor, settings.kafka
    of_generation = "" if generation == FIRST_GENERATION else f"-g{generation}"
    folder = processor.data_dir / f"{app_id}-{processor.slot}{of_generation}"
    folder.mkdir(parents=True, exist_ok=True)  # Faust makes the last part only
    app: Any = faust.App(
        app_id,
        broker=[f"kafka://{server}" for server in kafka.bootstrap_servers.split(",")],
        autodiscover=False,
        datadir=str(Path(folder).absolute()),
        store="rocksdb://",
        Table=MarkerTable,
        value_serializer="raw",
        key_serializer="raw",
        cython_optimizations=True,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=kafka.partitions,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=max(2, _QUEUED_RECORDS_MAX // processor.batch_size_max),
        broker_commit_interval=processor.commit_interval_s,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.heartbeat_interval_s,
        broker_request_timeout=max(30.0, kafka.session_timeout_s),
        broker_max_poll_records=4 * processor.batch_size_max,
        consumer_max_fetch_size=_FETCH_BYTES_MAX,
        consumer_group_instance_id=f"{app_id}-{processor.slot}",
        consumer_auto_offset_reset="earliest",
    )
    outputs = Outputs(kafka, processor, client_id=f"{app_id}-{processor.slot}")
    install(app, processor, outputs, guard.check)
    return app, outputs


def dedup_app(settings: Settings, guard: StallGuard, generation: int) -> Any:
    """events.ingested → table `seen` → events.accepted, events.duplicates, events.rejected."""
    app, outputs = make_app(DEDUP_APP, settings, guard, generation)
    table = declare(app, settings.kafka.partitions, outputs)
    dedup = Dedup(app, table, outputs, partitions=settings.kafka.partitions, window_ms=int(settings.ingest.idempotency_window_s * 1000))
    app.agent(app.topic(EVENTS_INGESTED, key_type=bytes, value_type=Batch, value_serializer="raw"), name="dedup", concurrency=1)(dedup.run)
    return app


def project_app(
    settings: Settings,
    guard: StallGuard,
    generation: int,
    *,
    folds: Sequence[Fold],
    pool: Pool,
    load_offsets: LoadOffsets,
    fenced: type[Exception],
    clock: Clock,
) -> Any:
    """Every fold's topic → Postgres (and events.rejected). What the folds are is the composition root's business."""
    processor = settings.processor.model_copy(update={"batch_size_max": settings.processor.fold_batch_size_max})
    app, outputs = make_app(PROJECT_APP, settings.model_copy(update={"processor": processor}), guard, generation)
    project = Project(app, outputs, pool, load_offsets, fenced, clock)
    app.transport.start_offsets = project.start_offsets
    for fold in folds:
        topic = app.topic(fold.topic, key_type=bytes, value_type=Batch, value_serializer="raw")
        app.agent(topic, name=f"project.{fold.topic}", concurrency=1)(project.agent(fold))
    return app


async def run(app: Any, guard: StallGuard, clock: Clock, stop: asyncio.Event, progress_timeout_s: float) -> None:
    """Run `app` until `stop` is set. A crash anywhere inside Faust ends the process, and so does work that stands still."""
    logging.getLogger("faust").setLevel(logging.WARNING)
    logging.getLogger("mode").setLevel(logging.WARNING)
    progress = Progress(progress_timeout_s)
    app.finalize()
    # Watched from its first moment: aiokafka's coordination can die before the first assignment, and then the start never ends.
    starting = asyncio.ensure_future(app.start())
    starting.add_done_callback(lambda done: _started(app, done))
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _TICK_S)
        guard.beat()
        if app.crashed or app.should_stop:
            die(f"{app.conf.id} crashed: {app.crash_reason!r}", EXIT_FATAL)
        if (stalled := progress.check(app, clock.monotonic_s(), started=starting.done())) is not None:
            die(f"{app.conf.id}: {stalled}", EXIT_STALLED)
    log.info("processor.stopping", app=app.conf.id)
    if not starting.done():
        leave()  # what has started is told to stop before what has not: the rest would go on starting behind it
    try:
        await asyncio.wait_for(app.stop(), _STOP_TIMEOUT_S)
    except TimeoutError:
        die(f"{app.conf.id} did not stop within {_STOP_TIMEOUT_S:g} s")


def _started(app: Any, starting: asyncio.Future[Any]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        die(f"{app.conf.id} did not start: {error!r}")
    log.info("processor.started", app=app.conf.id)
