"""What the HTTP server answers where no route does: whole problem documents as bytes, counted, one log line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from access.http import RawHeaders, context_of, problem_body, problem_headers
from runtime.clock import Clock
from runtime.metrics import HTTP_REFUSED
from runtime.telemetry import log
from schemas import problems
from schemas.problems import ProblemError

_RETRY_AFTER = {"Retry-After": "2"}


class Refusals:
    """`headers` are those every answer of this server has."""

    def __init__(self, clock: Clock, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._clock = clock
        self._headers = headers

    def render(
        self,
        error: ProblemError,
        reason: str,
        request_headers: RawHeaders,
        client: tuple[str, int] | None,
        default_headers: Sequence[tuple[bytes, bytes]],
        *,
        head: bool = False,
    ) -> bytes:
        """The whole answer, the last of its connection. `reason` is for the log and holds nothing of the request's values."""
        request_id = context_of(request_headers, self._clock).request_id
        HTTP_REFUSED.labels(error.problem.slug).inc()
        log.info(
            "http.refused",
            problem=error.problem.slug,
            status=error.problem.status,
            reason=reason,
            client=client[0] if client else None,
            request_id=request_id,
        )
        body = problem_body(error, request_id)
        own = [(name.lower().encode(), value.encode("latin-1")) for name, value in problem_headers(error, request_id).items()]
        named = {name for name, _ in own}
        lines = [*default_headers, *own, *(header for header in self._headers if header[0] not in named)]
        lines += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        status = HTTPStatus(error.problem.status)
        content = [f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()]
        for name, value in lines:
            content += [name, b": ", value, b"\r\n"]
        content += [b"\r\n", b"" if head else body]
        return b"".join(content)

    def unanswered(self, scope: Mapping[str, Any], *, stopped: bool) -> Iterator[dict[str, Any]]:
        """ASGI messages for a request the application left without an answer. What it had begun may have had its effect."""
        request_id = context_of(scope["headers"], self._clock).request_id
        if not stopped:
            error = ProblemError(problems.INTERNAL, "The failure was logged. Try again, and report the request id if it stays.")
        elif scope["method"] == "POST":
            error = ProblemError(
                problems.UNKNOWN_OUTCOME, "The server stopped before it knew the outcome. Send it again under the same idempotency key.",
                headers=_RETRY_AFTER, members={"outcome": "unknown"},
            )  # fmt: skip
        else:
            error = ProblemError(problems.UNAVAILABLE, "The server stopped before it could answer. Ask again.", headers=_RETRY_AFTER)
        body = problem_body(error, request_id)
        headers = {**problem_headers(error, request_id), "Content-Length": str(len(body)), "Connection": "close"}
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        yield {"type": "http.response.start", "status": error.problem.status, "headers": [*raw, *self._headers]}
        yield {"type": "http.response.body", "body": body}
