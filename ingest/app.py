"""The HTTP application: the hot path in front of FastAPI, health, and how uvicorn serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from access.http import context_of, install, problem_body, problem_headers
from ingest import openapi
from ingest.edge import Endpoint, Receive, Scope, Send, send_whole
from runtime.clock import Clock
from runtime.settings import ApiSettings
from schemas import problems
from schemas.problems import ProblemError

_SHUTDOWN_TIMEOUT_S: Final = 10
_KEEP_ALIVE_S: Final = 30
#: A probe's answer serves for this long, so that health checks cannot load the servers they ask about.
_PROBE_CACHE_S: Final = 1.0
_PROBE_TIMEOUT_S: Final = 2.0
#: Path, query and headers of a request together.
_HEAD_BYTES_MAX: Final = 16_384

Probe = Callable[[], Awaitable[bool]]


class Readiness:
    """Which servers answer. `required` ones decide whether this process is ready; without the others it is degraded."""

    def __init__(self, clock: Clock, required: Mapping[str, Probe], optional: Mapping[str, Probe]) -> None:
        self._clock = clock
        self._probes = {**required, **optional}
        self._required = frozenset(required)
        self._answer: tuple[int, dict[str, Any]] = (503, {})
        self._until_s = 0.0
        self._asking = asyncio.Lock()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """(status, document)."""
        async with self._asking:
            if self._clock.monotonic_s() >= self._until_s:
                results = await asyncio.gather(*(self._ask(probe) for probe in self._probes.values()))
                states = dict(zip(self._probes, results, strict=True))
                down = {name for name, up in states.items() if not up}
                status = "unavailable" if down & self._required else "degraded" if down else "ready"
                document = {"status": status, "dependencies": {name: "ok" if up else "down" for name, up in states.items()}}
                self._answer = (503 if status == "unavailable" else 200, document)
                self._until_s = self._clock.monotonic_s() + _PROBE_CACHE_S
            return self._answer

    @staticmethod
    async def _ask(probe: Probe) -> bool:
        try:
            return await asyncio.wait_for(probe(), _PROBE_TIMEOUT_S)
        except TimeoutError:
            return False


class Front:
    """Sends the hot paths straight to their endpoints and everything else to FastAPI."""

    def __init__(self, hot: Mapping[str, Endpoint], rest: FastAPI, clock: Clock) -> None:
        self._hot = hot
        self.rest = rest
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
        elif _head_bytes(scope) > _HEAD_BYTES_MAX:
            await self._refuse_head(scope, send)
        elif scope["method"] == "POST" and (endpoint := self._hot.get(scope["path"])) is not None:
            await endpoint(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI, with one request id for the route, its log lines and every answer, made here when the caller sent none."""
        request_id = context_of(scope["headers"], self._clock).request_id.encode()
        headers = [header for header in scope["headers"] if header[0] != b"x-request-id"]

        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and all(name.lower() != b"x-request-id" for name, _ in message["headers"]):
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id)]}
            await send(message)

        await self.rest({**scope, "headers": [*headers, (b"x-request-id", request_id)]}, receive, named)

    async def _refuse_head(self, scope: Scope, send: Send) -> None:
        request_id = context_of(scope["headers"], self._clock).request_id
        detail = f"Path, query and headers may have {_HEAD_BYTES_MAX} bytes together. Send less in them."
        error = ProblemError(problems.HEADERS_TOO_LARGE, detail, headers={"Connection": "close"})
        await send_whole(send, error.problem.status, problem_headers(error, request_id), problem_body(error, request_id))


def _head_bytes(scope: Scope) -> int:
    size = len(scope["raw_path"]) + len(scope["query_string"])
    for name, value in scope["headers"]:
        size += len(name) + len(value)
    return size


def create_app(
    settings: ApiSettings,
    clock: Clock,
    hot: Mapping[str, Endpoint],
    readiness: Readiness,
    routers: Sequence[APIRouter],
    *,
    version: str,
    background: Callable[[], AbstractAsyncContextManager[None]],
) -> Front:
    """The ASGI application. `hot`: endpoints by path, for POST.

    `background` is what runs beside requests, from before the first to after the last.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with background():
            yield

    app = FastAPI(
        title="Triggers",
        version=version,
        description="Post events once, for good; read them in an inbox or receive them as signed webhooks.",
        docs_url="/docs" if settings.docs_enabled else None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,  # a path with a slash too many is no path of ours; a redirect would name whatever Host was sent
    )
    install(app, clock)
    app.include_router(_about(readiness, version))
    app.include_router(openapi.router())
    for router in routers:
        app.include_router(router)
    return Front(hot, app, clock)


def _about(readiness: Readiness, version: str) -> APIRouter:
    router = APIRouter(tags=["about"])

    @router.get("/", summary="What this is")
    async def root() -> dict[str, str]:
        return {"name": "triggers", "version": version, "docs": "/docs", "openapi": "/openapi.json", "health": "/health/ready"}

    @router.get("/health", summary="Whether the process lives")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/health/ready", summary="Whether it can serve, with each server it needs", responses={503: {"description": "It cannot"}})
    async def ready() -> Response:
        status, document = await readiness.answer()
        return JSONResponse(document, status)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """None: the process has its own handlers."""
        return nullcontext()


async def serve(app: Front, settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then finish what is under way. Raises `SystemExit` if the port cannot be taken."""
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http="httptools",
            loop="none",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
    )

    async def ask_to_stop() -> None:
        await stop.wait()
        server.should_exit = True

    waiting = asyncio.create_task(ask_to_stop())
    try:
        await server.serve()
    finally:
        waiting.cancel()
