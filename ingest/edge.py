"""What the endpoints of the hot path share: a bare ASGI call, its problems as answers, its line in the log.

Bare ASGI, because FastAPI's own routing would be two thirds of the cost of a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from access.http import Context, context_of, problem_body, problem_headers
from access.limits import rate_headers, refused
from ingest.admission import Admission, Admitted
from ingest.begun import BEGUN, Begun
from ingest.bodies import ClientGone
from ingest.caller import Caller
from runtime.clock import Clock
from runtime.metrics import REQUEST_SECONDS, REQUESTS
from runtime.telemetry import event_line, log
from schemas.problems import INTERNAL, INVALID_KEY, REQUEST_TIMEOUT, UNAVAILABLE, ProblemError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = "application/json"
_requests: Final = REQUESTS.tally


class Reply(NamedTuple):
    """An answer: its status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Endpoint:
    """One route of the hot path. Subclasses say what it does with a caller that may post."""

    route: str
    deadline_s: float

    def __init__(self, clock: Clock, admission: Admission) -> None:
        self.clock = clock
        self.admission = admission
        self._durations = REQUEST_SECONDS.durations(self.route)

    async def reply(self, caller: Caller, scope: Scope, receive: Receive, began_s: float) -> Reply:
        """Raises `ProblemError` and `ClientGone`."""
        raise NotImplementedError

    async def resume(self, caller: Caller, begun: Begun) -> Reply:
        """As `reply`, for a request that comes from the fast path. Raises `ProblemError`."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun: Begun | None = scope.get(BEGUN)
        began_s = self.clock.monotonic_s() if begun is None else begun.began_s
        context = context_of(scope["headers"], self.clock) if begun is None else begun.context
        caller: Caller | None = None
        try:
            if begun is None:
                deadline_s = asyncio.get_running_loop().time() + self.deadline_s
                client = scope.get("client")
                caller = await self.admission.caller(scope["headers"], None if client is None else client[0], context, deadline_s)
                answer = await self.reply(caller, scope, receive, began_s)
            else:
                caller = self.admission.caller_of(begun)
                answer = await self.resume(caller, begun)
        except ProblemError as error:
            answer = await self._refused(error, caller, context, began_s)
            if error.problem is INVALID_KEY:
                caller = None  # it was valid until now: who holds it is told no more about the organization than a stranger
        except ClientGone:
            _requests[self.route, "gone"] += 1
            return
        except Exception as error:  # noqa: BLE001 - the edge of the process: answered as a problem, logged whole
            log.error("request.failed", request_id=context.request_id, exc_info=error)
            detail = "The failure was logged under this request id. Try again with the same idempotency key."
            answer = await self._refused(ProblemError(INTERNAL, detail), None, context, began_s)
        headers = {**answer.headers, "X-Request-Id": context.request_id}
        if caller is not None and caller.allowance is not None:
            headers.update(rate_headers(caller.allowance))
        await send_whole(send, answer.status, headers, answer.body)
        self.count(answer.status, self.clock.monotonic_s() - began_s)

    def count(self, status: int, duration_s: float) -> None:
        """A request that was answered."""
        _requests[self.route, str(status)] += 1
        self._durations.add(duration_s)

    async def _refused(self, error: ProblemError, caller: Caller | None, context: Context, began_s: float) -> Reply:
        """A request that is refused for itself counts against the quota as any other."""
        if caller is not None and caller.allowance is None:
            allowance = await self.admission.count(caller, 1)
            if not allowance.granted:
                error = refused(allowance)
        error = with_outcome(error)
        headers = problem_headers(error, context.request_id)
        if error.problem is REQUEST_TIMEOUT:
            headers["Connection"] = "close"
        log_refusal(error, context, self.clock.monotonic_s() - began_s)
        return Reply(error.problem.status, problem_body(error, context.request_id), headers)


def with_outcome(error: ProblemError) -> ProblemError:
    """Every 503 about an event says what became of it; what `unavailable` is raised for comes before the append."""
    if error.problem is not UNAVAILABLE:
        return error
    return ProblemError(UNAVAILABLE, error.detail, headers=error.headers, members={**error.members, "outcome": "not_appended"})


def too_slow_body() -> ProblemError:
    return ProblemError(REQUEST_TIMEOUT, "The body did not arrive in time; nothing was appended. Send it again.")


def log_append(admitted: Admitted, context: Context, duration_s: float) -> None:
    event, report = admitted
    event_line(
        "event.appended",
        event_id=event.id,
        organization=event.organization,
        mode=event.mode,
        type=event.type,
        partition=report.partition,
        offset=report.offset,
        payload_bytes=len(bytes(event.payload)),
        keyed=event.dedup_key is not None,
        request_id=context.request_id,
        trace_id=context.trace.trace_id,
        duration_ms=round(duration_s * 1000, 2),
    )


def log_refusal(error: ProblemError, context: Context, duration_s: float) -> None:
    event_line(
        "event.refused",
        problem=error.problem.slug,
        status=error.problem.status,
        event_id=error.members.get("id"),
        outcome=error.members.get("outcome"),
        request_id=context.request_id,
        trace_id=context.trace.trace_id,
        duration_ms=round(duration_s * 1000, 2),
    )


@lru_cache(64)
def _raw_name(name: str) -> bytes:
    return name.lower().encode()


async def send_whole(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    raw = [(_raw_name(name), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
