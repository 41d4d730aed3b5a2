"""How the application is served: uvicorn with our protocol, the deadlines of its connections, and how it ends."""

from __future__ import annotations

import asyncio
import math
import resource
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn

from ingest.app import Application
from ingest.connection import Server
from ingest.middleware import security_headers
from ingest.protocol import BoundedProtocol
from ingest.refusals import Refusals
from runtime.lifecycle import beside
from runtime.settings import ApiSettings
from runtime.telemetry import log

#: How often connections are held to their deadlines, which are this late at most.
_SWEEP_S: Final = 0.5
#: Files beside the connections of callers: servers, logs, libraries, look-ups.
_FILES_RESERVED: Final = 256


class _Uvicorn(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """None: the process has its own handlers."""
        return nullcontext()


async def serve(app: Application, settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then finish what is under way. Raises `SystemExit` if the port cannot be taken.

    After `stop`: readiness says `draining` and every answer is its connection's last, for `drain_s`; then no connection is taken any
    more and what is under way gets `shutdown_timeout_s`.
    """
    shared = Server(
        settings,
        Refusals(app.clock, security_headers(settings.hsts_max_age_s)),
        connections_max=room_for(settings.connections_max),
        fast_path=app.fast_path,
    )
    server = _Uvicorn(configured(app, settings, partial(BoundedProtocol, shared)))

    async def ask_to_stop() -> None:
        await stop.wait()
        app.readiness.drain()
        shared.draining = True
        log.info("api.draining", drain_s=settings.drain_s, connections=len(server.server_state.connections))
        await asyncio.sleep(settings.drain_s)
        server.should_exit = True

    async def sweep() -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            for connection in list(server.server_state.connections):
                cast(BoundedProtocol, connection).sweep(loop.time())

    tasks = [beside(ask_to_stop(), "stopping"), beside(sweep(), "ending slow connections")]
    try:
        await server.serve()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def configured(app: Application, settings: ApiSettings, protocol: Any) -> uvicorn.Config:
    """uvicorn's settings. Forwarded headers are believed of the proxies that are named; uvicorn alone would believe the loopback's."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol,
        interface="asgi3",
        loop="none",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )


def room_for(connections_max: int) -> int:
    """Connections this process may hold open. Raises its soft limit of open files as far as needed and allowed; says so if that is less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + _FILES_RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = connections_max if soft == resource.RLIM_INFINITY else min(connections_max, max(1, soft - _FILES_RESERVED))
    if room < connections_max:
        log.warning("api.few_files", connections_max=room, wanted=connections_max, files_max=soft)
    return room
