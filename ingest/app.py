"""The HTTP application: the hot path in front of FastAPI, and health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from access.http import context_of, install, problem_body, problem_headers
from access.openapi import TEXT, answered, record
from access.openapi_document import document
from ingest import openapi
from ingest.connection import Cycle
from ingest.edge import Endpoint, Receive, Scope, Send
from ingest.middleware import App, SecurityHeaders, page_policy, security_headers, with_cors
from runtime.clock import Clock
from runtime.settings import ApiSettings
from schemas.problems import METHOD_NOT_ALLOWED, ProblemError

#: A probe's answer serves for this long, so that health checks cannot load the servers they ask about.
_PROBE_CACHE_S: Final = 1.0
_PROBE_TIMEOUT_S: Final = 2.0
_DOCS_PATH: Final = "/docs"
#: Up or not, or why not in a word.
Probe = Callable[[], Awaitable[bool | str]]


class Readiness:
    """Which servers answer. `required` ones decide whether this process is ready; without the others it is degraded.

    Once it is told to stop it is not ready, whatever its servers say.
    """

    def __init__(self, clock: Clock, required: Mapping[str, Probe], optional: Mapping[str, Probe]) -> None:
        self._clock = clock
        self._probes = {**required, **optional}
        self._required = frozenset(required)
        self._answer: tuple[int, dict[str, Any]] = (503, {})
        self._until_s = 0.0
        self._asking = asyncio.Lock()
        self._draining = False

    def drain(self) -> None:
        """From now on: send new callers elsewhere."""
        self._draining = True

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """(status, document)."""
        if self._draining:
            return 503, {"status": "draining", "dependencies": {}}
        async with self._asking:
            if self._clock.monotonic_s() >= self._until_s:
                results = await asyncio.gather(*(self._ask(probe) for probe in self._probes.values()))
                states = dict(zip(self._probes, results, strict=True))
                down = {name for name, state in states.items() if state != "ok"}
                status = "unavailable" if down & self._required else "degraded" if down else "ready"
                document = {"status": status, "dependencies": states}
                self._answer = (503 if status == "unavailable" else 200, document)
                self._until_s = self._clock.monotonic_s() + _PROBE_CACHE_S
            return self._answer

    @staticmethod
    async def _ask(probe: Probe) -> str:
        try:
            state = await asyncio.wait_for(probe(), _PROBE_TIMEOUT_S)
        except TimeoutError:
            return "down"
        return state if isinstance(state, str) else "ok" if state else "down"


class Front:
    """Sends the hot paths straight to their endpoints and everything else to FastAPI."""

    def __init__(self, hot: Mapping[str, Endpoint], rest: FastAPI, clock: Clock) -> None:
        self._hot = hot
        self._rest = rest
        self._clock = clock

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._rest(scope, receive, send)
        if scope["method"] == "POST" and (endpoint := self._hot.get(scope["path"])) is not None:
            return endpoint(scope, receive, send)
        return self._named(scope, receive, send)

    async def _rest_of(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI; but a hot path has one method: FastAPI would go on to `/events/{event_id}` and allow what is allowed there."""
        if scope["path"] not in self._hot:
            await self._rest(scope, receive, send)
            return
        error = ProblemError(METHOD_NOT_ALLOWED, "Use one of: POST.", headers={"Allow": "POST"})
        request_id = context_of(scope["headers"], self._clock).request_id
        answer = Response(problem_body(error, request_id), error.problem.status, problem_headers(error, request_id))
        await answer(scope, receive, send)

    async def _named(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI, with one request id for the route, its log lines and every answer, made here when the caller sent none.

        HEAD is answered as GET without its body (RFC 9110 section 9.3.2), on every path at once.
        """
        request_id = context_of(scope["headers"], self._clock).request_id.encode()
        headers = [header for header in scope["headers"] if header[0] != b"x-request-id"]
        asked = {**scope, "headers": [*headers, (b"x-request-id", request_id)]}
        head = scope["method"] == "HEAD"
        ended = False
        if head:
            asked["method"] = "GET"

        async def named(message: MutableMapping[str, Any]) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                if all(name.lower() != b"x-request-id" for name, _ in message["headers"]):
                    message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id)]}
            elif head:
                if ended:  # the rest of a stream nobody reads
                    return
                ended, message = True, {"type": "http.response.body"}
            await send(message)

        await self._rest_of(asked, receive, named)


class Application:
    """The whole ASGI application, what the server has to tell it, and its published contract."""

    def __init__(
        self, app: App, readiness: Readiness, clock: Clock, contract: Callable[[], dict[str, Any]], fast_path: Callable[[Cycle], bool]
    ) -> None:
        self._app = app
        self.fast_path = fast_path
        self.readiness = readiness
        self.clock = clock
        self.contract = contract

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, send)


def create_app(
    settings: ApiSettings,
    clock: Clock,
    hot: Mapping[str, Endpoint],
    readiness: Readiness,
    routers: Sequence[APIRouter],
    *,
    version: str,
    background: Callable[[], AbstractAsyncContextManager[None]],
    fast_path: Callable[[Cycle], bool] = lambda _: False,
    docs: bool = True,
) -> Application:
    """The ASGI application. `hot`: endpoints by path, for POST. `fast_path` is the server's. `docs` serves /docs.

    `background` is what runs beside requests, from before the first to after the last.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with background():
            yield

    app = FastAPI(
        title="Triggers",
        version=version,
        docs_url=_DOCS_PATH if docs else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,  # a path with a slash too many is no path of ours; a redirect would name whatever Host was sent
    )
    install(app, clock)
    app.include_router(_about(readiness, version, docs))
    app.include_router(openapi.router())
    for router in routers:
        app.include_router(router)
    contract = cache(lambda: document(app))
    app.openapi = contract  # type: ignore[method-assign]
    front = with_cors(Front(hot, app, clock), settings.cors_origins)
    policies = {_DOCS_PATH: page_policy(_docs_page(app))} if docs else {}
    return Application(SecurityHeaders(front, security_headers(settings.hsts_max_age_s), policies), readiness, clock, contract, fast_path)


def _docs_page(app: FastAPI) -> str:
    """The page /docs answers with."""
    return bytes(get_swagger_ui_html(openapi_url=app.openapi_url or "", title=f"{app.title} - Swagger UI").body).decode()


def _about(readiness: Readiness, version: str, docs: bool) -> APIRouter:
    router = APIRouter(tags=["about"])

    @router.get("/", summary="What this is", operation_id="about", responses=_ABOUT)
    async def root() -> Response:
        shown = {"docs": _DOCS_PATH} if docs else {}
        return JSONResponse({"name": "triggers", "version": version, **shown, "openapi": "/openapi.json", "health": "/health/ready"})

    @router.get("/health", summary="Whether the process lives", operation_id="health", responses=_ALIVE)
    async def health() -> Response:
        return JSONResponse({"status": "alive"})

    @router.get("/health/ready", summary="Whether it can serve, with each server it needs", operation_id="readiness", responses=_READY)
    async def ready() -> Response:
        status, document = await readiness.answer()
        return JSONResponse(document, status)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


_ABOUT: Final = answered(
    200, "Name, version, and where to go on.",
    record("About", optional=["docs"], name=TEXT, version=TEXT, docs=TEXT, openapi=TEXT, health=TEXT),
    with_docs={"name": "triggers", "version": "0.1.0", "docs": _DOCS_PATH, "openapi": "/openapi.json", "health": "/health/ready"},
)  # fmt: skip
_ALIVE: Final = answered(200, "It lives.", record("Alive", status={"type": "string", "enum": ["alive"]}), alive={"status": "alive"})
_READINESS: Final = record(
    "Readiness",
    status={"type": "string", "enum": ["ready", "degraded", "unavailable", "draining"]},
    dependencies={
        "type": "object",
        "additionalProperties": {"type": "string", "enum": ["ok", "down", "rebuilding"]},
        "description": "Each server by name. Empty while draining.",
    },
)
_READY: Final = {
    **answered(
        200, "It can serve; `degraded`: without Redis, whose work the log does.", _READINESS,
        ready={"status": "ready", "dependencies": {"kafka": "ok", "postgres": "ok", "redis": "ok"}},
        degraded={"status": "degraded", "dependencies": {"kafka": "ok", "postgres": "ok", "redis": "down"}},
    ),
    **answered(
        503, "It cannot: send callers elsewhere.", _READINESS,
        unavailable={"status": "unavailable", "dependencies": {"kafka": "rebuilding", "postgres": "ok", "redis": "ok"}},
        draining={"status": "draining", "dependencies": {}},
    ),
}  # fmt: skip
