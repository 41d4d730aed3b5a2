"""`POST /events`: the hot path, as a bare ASGI endpoint. FastAPI's own routing would be two thirds of its cost.

The order of effects: authenticate, read, validate, reserve, append, confirm, answer. A crash between any two leaves either nothing, or a
reservation whose lease lapses, or an event in the log whose caller asks again under the same key and is told its id.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from access.auth import Authenticator, Principal, key_of
from access.http import Context, context_of, problem_body, problem_headers
from ingest.accept import Draft, accept, check_headers
from ingest.append import Appender, unknown
from ingest.idempotency import Reservation, Reservations, redis_key
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.kafka import Headers, Report
from runtime.metrics import REQUEST_SECONDS, REQUESTS, RESERVATIONS
from runtime.redis import RedisTick, RedisUnavailable
from runtime.settings import IngestSettings
from runtime.telemetry import event_line, log
from schemas import codec, ids
from schemas.events import SCHEMA_VERSION, Ingested
from schemas.problems import (
    BODY_TOO_LARGE,
    DUPLICATE,
    IN_FLIGHT,
    INTERNAL,
    KEY_REUSED,
    REQUEST_TIMEOUT,
    UNAVAILABLE,
    ProblemError,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SCOPE: Final = "events:write"
_ROUTE: Final = "POST /events"
_OWNER_RANDOM_BYTES: Final = 12
_PAUSE_FIRST_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.1
_MAY_APPEND: Final = ("reserved", "takeover")

T = TypeVar("T")


class ClientGone(Exception):
    """The caller closed the connection before its body was whole: there is nobody to answer."""


class PostEvents:
    """The endpoint. Everything it needs is handed in; nothing is global."""

    def __init__(
        self,
        settings: IngestSettings,
        clock: Clock,
        authenticator: Authenticator,
        tick: RedisTick,
        reservations: Reservations,
        appender: Appender,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._authenticator = authenticator
        self._tick = tick
        self._reservations = reservations
        self._appender = appender
        self._body_bytes_max = settings.payload_bytes_max + settings.body_overhead_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = self._clock.monotonic_s()
        headers = scope["headers"]
        context = context_of(headers, self._clock)
        try:
            event, report = await self._event(headers, receive, context)
        except ProblemError as error:
            await self._refuse(send, _with_outcome(error), context, began_s)
        except ClientGone:
            REQUESTS.labels(_ROUTE, "gone").inc()
        except Exception as error:  # noqa: BLE001 - the edge of the process: answered as a problem, logged whole
            log.error("request.failed", request_id=context.request_id, exc_info=error)
            failed = ProblemError(INTERNAL, "The failure was logged under this request id. Try again with the same idempotency key.")
            await self._refuse(send, failed, context, began_s)
        else:
            await self._answer(send, event, report, context, began_s)

    async def _event(self, headers: list[tuple[bytes, bytes]], receive: Receive, context: Context) -> tuple[Ingested, Report]:
        """Each step is bounded by what is left of the deadline, and a step that runs out of it says what that means."""
        deadline_s = asyncio.get_running_loop().time() + self._settings.request_deadline_s
        key = key_of(headers)
        changes = self._authenticator.changes
        principal = self._authenticator.cached(key)
        if principal is None:
            async with _within(deadline_s, _too_slow_to_check):
                principal = await self._authenticator.authenticate(key)
        principal.require(SCOPE)
        check_headers(headers)
        async with _within(deadline_s, _too_slow_body):
            body = await self._read(headers, receive)
        draft = accept(body, headers, payload_bytes_max=self._settings.payload_bytes_max)
        event = self._ingested(draft, principal)
        if draft.dedup_key is None:
            async with _within(deadline_s, _too_slow_to_check):
                await self._without_redis(self._tick.touch())
                await self._still_valid(key, changes)
            return event, await self._append(event, context, deadline_s)
        return await self._append_once(event, draft.dedup_key, key, changes, context, deadline_s)

    def _ingested(self, draft: Draft, principal: Principal) -> Ingested:
        now_ms = self._clock.now_ms()
        return Ingested(
            v=SCHEMA_VERSION,
            id=ids.event_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
            organization=principal.organization,
            mode=principal.mode,
            type=draft.type,
            received_at_ms=now_ms,
            fingerprint=draft.fingerprint,
            dedup_key=draft.dedup_key,
            subject=draft.subject,
            occurred_at=draft.occurred_at,
            payload=Raw(draft.payload),
        )

    async def _read(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
        """The body, counted while it comes. What is too long is refused without reading on."""
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value) > self._body_bytes_max:
                raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > self._body_bytes_max:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> ProblemError:
        limit = self._settings.payload_bytes_max
        return ProblemError(
            BODY_TOO_LARGE, f"A payload may have {limit} bytes, the whole body {self._body_bytes_max}. Send a reference to it.",
            headers={"Connection": "close"},
        )  # fmt: skip

    async def _still_valid(self, key: str, changes: int) -> None:
        """After a Redis round trip: if it showed another epoch, the key is looked up again before anything is done in its name."""
        if self._authenticator.changes != changes:
            (await self._authenticator.authenticate(key)).require(SCOPE)

    async def _append_once(
        self, event: Ingested, dedup_key: str, key: str, changes: int, context: Context, deadline_s: float
    ) -> tuple[Ingested, Report]:
        """Reserve, append, confirm. Without Redis the append goes on alone: dedup decides from the log."""
        name = redis_key(event.organization, event.mode, dedup_key)
        owner = os.urandom(_OWNER_RANDOM_BYTES).hex()
        async with _within(deadline_s, _too_slow_to_check):
            held = await self._reserve(name, event, owner, key, changes)
        if held is not None and held.event_id != event.id:
            event = msgspec.structs.replace(event, id=held.event_id)  # taken over: the same event must keep its id
        reach("api.after_reserve")
        try:
            report = await self._append(event, context, deadline_s)
        except ProblemError as error:
            if held is not None and error.members.get("outcome") == "not_appended":
                await self._told(self._reservations.release(name, event.id, owner))
            raise
        reach("api.after_append")
        await self._told(self._reservations.confirm(name, event.id, event.fingerprint, report.timestamp_ms))
        reach("api.after_confirm")
        return event, report

    async def _reserve(self, name: str, event: Ingested, owner: str, key: str, changes: int) -> Reservation | None:
        """A reservation that may append, or None without Redis. Raises the problems of a key that is taken."""
        pause_s = _PAUSE_FIRST_S
        deadline_s = self._clock.monotonic_s() + self._settings.request_deadline_s / 2
        while True:
            held = await self._without_redis(self._reservations.reserve(name, event.id, event.fingerprint, owner))
            try:
                await self._still_valid(key, changes)
            except ProblemError:
                if held is not None and held.outcome in _MAY_APPEND:
                    await self._told(self._reservations.release(name, held.event_id, owner))
                raise
            changes = self._authenticator.changes
            if held is None:
                RESERVATIONS.labels("without_redis").inc()
                return None
            if held.outcome != "pending":
                break
            if self._clock.monotonic_s() >= deadline_s:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        RESERVATIONS.labels(held.outcome).inc()
        located = {"Location": f"/events/{held.event_id}"}
        if held.outcome == "duplicate":
            raise ProblemError(
                DUPLICATE, f"This event is {held.event_id} already; nothing was added. Do not send it again.",
                headers=located, members={"id": held.event_id},
            )  # fmt: skip
        if held.outcome == "conflict":
            raise ProblemError(
                KEY_REUSED, f"Under this idempotency key {held.event_id} was sent, with another type, subject or payload. Use a new key.",
                headers=located, members={"id": held.event_id},
            )  # fmt: skip
        if held.outcome == "pending":
            raise ProblemError(
                IN_FLIGHT, "Another request with this idempotency key is under way. Ask again in a moment.",
                headers={"Retry-After": str(max(1, -(-held.remaining_ms // 1000)))}, members={"id": held.event_id},
            )  # fmt: skip
        return held

    async def _append(self, event: Ingested, context: Context, deadline_s: float) -> Report:
        headers: Headers = (
            (codec.HEADER_EVENT_ID, event.id.encode()),
            *codec.STANDARD_HEADERS,
            (codec.HEADER_REQUEST_ID, context.request_id.encode()),
            (codec.HEADER_TRACEPARENT, context.trace.traceparent.encode()),
        )
        async with _within(deadline_s, unknown):  # what was sent cannot be taken back
            return await self._appender.append(event.organization, codec.encode(event), headers)

    @staticmethod
    async def _without_redis(trip: Awaitable[T]) -> T | None:
        """The answer of a Redis round trip; None without Redis."""
        try:
            return await trip
        except RedisUnavailable:
            return None

    @staticmethod
    async def _told(trip: Awaitable[Any]) -> None:
        """What Redis is told after the append is help for the next caller; not to have told it loses nothing."""
        try:
            await trip
        except RedisUnavailable:
            RESERVATIONS.labels("not_told").inc()

    async def _answer(self, send: Send, event: Ingested, report: Report, context: Context, began_s: float) -> None:
        received_at = datetime.fromtimestamp(event.received_at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = msgspec.json.encode({"id": event.id, "status": "pending", "received_at": received_at})
        headers = {"Content-Type": "application/json", "Location": f"/events/{event.id}", "X-Request-Id": context.request_id}
        await send_whole(send, 201, headers, body)
        duration_s = self._observe("201", began_s)
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

    async def _refuse(self, send: Send, error: ProblemError, context: Context, began_s: float) -> None:
        headers = problem_headers(error, context.request_id)
        if error.problem is REQUEST_TIMEOUT:
            headers["Connection"] = "close"
        await send_whole(send, error.problem.status, headers, problem_body(error, context.request_id))
        duration_s = self._observe(str(error.problem.status), began_s)
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

    def _observe(self, status: str, began_s: float) -> float:
        duration_s = self._clock.monotonic_s() - began_s
        REQUESTS.labels(_ROUTE, status).inc()
        REQUEST_SECONDS.labels(_ROUTE).observe(duration_s)
        return duration_s


@asynccontextmanager
async def _within(deadline_s: float, problem: Callable[[], ProblemError]) -> AsyncIterator[None]:
    """Bound a step by the request's deadline (loop time); running out of it is `problem`."""
    try:
        async with asyncio.timeout_at(deadline_s):
            yield
    except TimeoutError as error:
        raise problem() from error


def _with_outcome(error: ProblemError) -> ProblemError:
    """Every 503 of this endpoint says what became of the event; what `unavailable` is raised for comes before the append."""
    if error.problem is not UNAVAILABLE:
        return error
    return ProblemError(UNAVAILABLE, error.detail, headers=error.headers, members={**error.members, "outcome": "not_appended"})


def _too_slow_body() -> ProblemError:
    return ProblemError(REQUEST_TIMEOUT, "The body did not arrive in time; nothing was appended. Send it again.")


def _too_slow_to_check() -> ProblemError:
    return ProblemError(
        UNAVAILABLE, "The key could not be checked in time; nothing was appended. Send it again.", headers={"Retry-After": "2"}
    )


async def send_whole(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
