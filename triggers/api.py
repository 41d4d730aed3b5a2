"""The API process: ingest, the read side and the operator API in one ASGI application.

It starts without waiting for its servers: what needs a server that is away answers 503 and says so, and `/health/ready` names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Final

import psycopg
import psycopg_pool

from access import endpoint_routes, erasure_routes, event_type_routes
from access.auth import Authenticator
from access.data_keys import DataKeys
from access.endpoint_bodies import Rules
from access.epoch import epoch_key, tell_caches
from access.limits import Limiter
from access.operator_desk import OperatorDesk
from access.operator_routes import router as operator_router
from access.secrets import Keyring
from ingest.app import Application, Readiness, create_app
from ingest.append import Appender
from ingest.batches import BatchAdmission
from ingest.catalogue import Catalogue
from ingest.idempotency import Reservations
from ingest.routes import PostBatch, PostEvents
from projections import endpoint_routes as attempt_routes
from projections import redelivery_routes, replay_routes
from projections.pending import PendingLook
from projections.reading import Reading
from projections.redeliveries import Redeliveries
from projections.routes import router
from runtime.clock import SYSTEM
from runtime.kafka import Bus
from runtime.lifecycle import beside
from runtime.postgres import CONTROL_SCHEMA, FOLDS_SCHEMA, pool, thread_pool
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import Settings
from triggers.erasure import reapply_at_start, tell_log

_PROBE_TIMEOUT_S: Final = 1.5


def make_api(settings: Settings) -> Application:
    """Everything of the API process, wired. Raises `access.secrets.KeyringError` without master keys."""
    ingest, clock = settings.ingest, SYSTEM
    keyring = Keyring.from_setting(settings.master_keys.get_secret_value())
    cursor_key = keyring.derive(b"cursor")
    connections = pool(settings.postgres, search_path=FOLDS_SCHEMA, application="api")
    authenticator = Authenticator(ingest, clock, connections, settings.access)
    tick = RedisTick(settings.redis, clock, watch=epoch_key(), on_watched=authenticator.on_epoch)
    authenticator.tick = tick

    def make_bus(on_fatal: Callable[[str], None]) -> Bus:
        return Bus(
            settings.kafka, client_id="api", linger_ms=ingest.linger_ms, delivery_timeout_s=ingest.delivery_timeout_s, on_fatal=on_fatal
        )

    appender = Appender(make_bus, in_flight_max=ingest.appends_in_flight_max)
    reservations = Reservations(tick, lease_ms=int(ingest.reservation_lease_s * 1000), window_ms=int(ingest.idempotency_window_s * 1000))
    data_keys = DataKeys(connections, keyring, clock, lambda: authenticator.changes)
    admission = BatchAdmission(
        ingest,
        clock,
        authenticator,
        Limiter(tick, clock),
        Catalogue(connections, clock, lambda: authenticator.changes),
        reservations,
        appender,
        data_keys,
    )
    hot = {"/events": PostEvents(ingest, clock, admission), "/events/batch": PostBatch(ingest, clock, admission)}
    reading = Reading(
        connections,
        lambda: appender.bus,
        PendingLook(settings.kafka),
        clock,
        data_keys,
        cursor_key=cursor_key,
        partitions=settings.kafka.partitions,
    )

    redeliveries = Redeliveries(connections, lambda: appender.bus, clock)
    control = thread_pool(
        settings.postgres, search_path=CONTROL_SCHEMA, application="control", size_max=settings.access.control_connections_max
    )
    desk = OperatorDesk(control, settings.redis, clock, settings.access.failed_keys_per_minute_max)

    async def kafka_answers() -> bool | str:
        if appender.rebuilding:
            return "rebuilding"
        return await appender.bus.reachable(_PROBE_TIMEOUT_S)

    async def postgres_answers() -> bool:
        try:
            async with connections.connection(timeout=_PROBE_TIMEOUT_S) as connection:
                await connection.execute("SELECT 1")
        except (psycopg.Error, psycopg_pool.PoolTimeout):
            return False
        return True

    async def redis_answers() -> bool:
        try:
            await tick.touch()
        except RedisUnavailable:
            return False
        return True

    readiness = Readiness(clock, {"kafka": kafka_answers, "postgres": postgres_answers}, {"redis": redis_answers})

    @asynccontextmanager
    async def background() -> AsyncIterator[None]:
        await appender.start()
        await connections.open()
        control.open()
        last_used = authenticator.last_used.keep_writing(connections, settings.access.last_used_interval_s)
        tasks = [beside(authenticator.keep_epoch(), "following the key epoch"), beside(last_used, "writing when keys were last used")]
        tasks.append(asyncio.create_task(reapply_at_start(settings)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await appender.stop()
            await tick.close()
            await asyncio.to_thread(control.close)
            await connections.close()

    return create_app(
        settings.api,
        clock,
        hot,
        readiness,
        [
            router(reading, authenticator.request, clock),
            event_type_routes.router(control, authenticator.request, partial(tell_caches, settings.redis), clock),
            endpoint_routes.router(control, authenticator.request, keyring, Rules.of(settings), clock, redeliveries.missed_by),
            attempt_routes.router(reading, authenticator.request, clock),
            redelivery_routes.router(redeliveries, control, authenticator.request, clock),
            operator_router(desk, clock),
            erasure_routes.router(desk, clock, keyring, partial(tell_log, settings)),
            replay_routes.router(redeliveries, desk, settings, clock),
        ],
        version=version("triggers-on-kafka"),
        background=background,
        docs=settings.docs_enabled,
    )
