"""Problems as HTTP answers (RFC 9457), request ids, and what every answer carries, for the ASGI hot path and for FastAPI alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from runtime.clock import Clock
from runtime.randomness import Randomness
from runtime.telemetry import Trace, log
from schemas import ids
from schemas.problems import (
    CONTENT_TYPE,
    INTERNAL,
    INVALID_PARAMETER,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Problem,
    ProblemError,
)

_REQUEST_ID: Final = re.compile(rb"\A[A-Za-z0-9._-]{1,64}\Z")
_TRACE_RANDOM_BYTES: Final = 24
_random: Final = Randomness()
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

RawHeaders = Iterable[tuple[bytes, bytes]]


class Context(NamedTuple):
    """What a request is called in logs, answers and record headers."""

    request_id: str
    trace: Trace


def context_of(headers: RawHeaders, clock: Clock) -> Context:
    """The caller's `X-Request-Id` if it is harmless to repeat, else a new one; the caller's trace continued, else a new one."""
    request_id = traceparent = None
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            request_id = value.decode()
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    random = _random.take(_TRACE_RANDOM_BYTES + ids.RANDOM_BYTES)
    if request_id is None:
        request_id = ids.request_id(clock.now_ms(), random[_TRACE_RANDOM_BYTES:])
    return Context(request_id, Trace.parse(traceparent, random))


def problem_body(error: ProblemError, request_id: str) -> bytes:
    return msgspec.json.encode(error.document(request_id))


def problem_headers(error: ProblemError, request_id: str) -> dict[str, str]:
    return {"Content-Type": CONTENT_TYPE, "X-Request-Id": request_id, "Cache-Control": "no-store", **error.headers}


def install(app: FastAPI, clock: Clock) -> None:
    """Render every error of `app`'s routes as a problem document."""

    def answer(request: Request, error: ProblemError) -> Response:
        request_id = context_of(request.headers.raw, clock).request_id
        return Response(problem_body(error, request_id), error.problem.status, problem_headers(error, request_id))

    async def on_problem(request: Request, error: Exception) -> Response:
        if not isinstance(error, ProblemError):
            raise error
        return answer(request, error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        details = error.errors() if isinstance(error, RequestValidationError) else []
        first = details[0] if details else {"loc": ("request",), "msg": "is not valid"}
        place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return answer(request, ProblemError(INVALID_PARAMETER, f"{place}: {first['msg']}."))

    async def on_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == METHOD_NOT_ALLOWED.status:
            allowed = ", ".join(_allowed(request))
            return answer(request, ProblemError(METHOD_NOT_ALLOWED, f"Use one of: {allowed}.", headers={"Allow": allowed}))
        if status == NOT_FOUND.status:
            return answer(request, ProblemError(NOT_FOUND, "There is no such path. The API's paths are listed in /openapi.json."))
        return answer(request, ProblemError(Problem("http", status, "The request could not be answered"), str(error)))

    async def on_gone(request: Request, _: Exception) -> Response:
        """The caller went away before its body was whole: nobody reads this, and nothing failed."""
        return answer(request, ProblemError(MALFORMED_REQUEST, "The body did not arrive whole; nothing was done."))

    async def on_failure(request: Request, error: Exception) -> Response:
        context = context_of(request.headers.raw, clock)
        log.error("request.failed", path=request.url.path, request_id=context.request_id, exc_info=error)
        failed = ProblemError(INTERNAL, "The failure was logged under this request id. Try again, and report the id if it stays.")
        return Response(problem_body(failed, context.request_id), 500, problem_headers(failed, context.request_id))

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)


def _allowed(request: Request) -> list[str]:
    """The methods of a path, over all its routes: the exception names only those of the first. HEAD is answered wherever GET is."""
    routes = request.app.router.routes
    found = [method for method in _METHODS if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found
