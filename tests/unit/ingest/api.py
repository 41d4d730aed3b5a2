"""The whole ASGI application over collaborators whose answers are chosen: no sockets, no servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, cast

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from access.auth import Authenticator, Principal
from access.data_keys import DataKeys
from access.limits import Allowance, Limiter
from ingest.app import Application, Readiness, create_app
from ingest.append import Appender
from ingest.batches import BatchAdmission
from ingest.catalogue import Catalogue
from ingest.idempotency import Confirmed, Outcome, Reservation, Reservations, Wanted
from ingest.routes import PostBatch, PostEvents
from runtime.clock import SYSTEM
from runtime.kafka import Report
from runtime.redis import RedisUnavailable
from runtime.settings import ApiSettings, IngestSettings
from schemas import codec, ids
from schemas.events import Ingested
from schemas.ids import ApiKeyId, EventId
from schemas.problems import INVALID_EVENT, INVALID_KEY, ProblemError

ORGANIZATION = ids.organization_id(1, bytes(10))
PRINCIPAL = Principal(ApiKeyId("key_1"), ORGANIZATION, "test", ("events:write",), "free", None, None)
HELD = ids.event_id(7, bytes(10))
HEADERS = [(b"x-api-key", b"k"), (b"content-type", b"application/json")]
SETTINGS = IngestSettings(request_deadline_s=0.3, batch_deadline_s=5.0)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    size: int = 0


class Auth:
    """`known` is cached; `revoke` is what the next round trip shows."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.principal: Principal | None = PRINCIPAL
        self.known = True
        self.changes = 0
        self.error = INVALID_KEY
        self.slow_s = 0.0

    def cached(self, _: str, address: str | None = None) -> Principal | None:
        return self.principal if self.known else None

    async def authenticate(self, _: str, address: str | None = None) -> Principal:
        await asyncio.sleep(self.slow_s)
        if self.principal is None:
            raise ProblemError(self.error, "No.")
        return self.principal

    async def moved(self) -> bool:
        before = self.changes
        with suppress(RedisUnavailable):
            await self.tick.touch()
        return self.changes != before

    def revoke(self) -> None:
        self.principal, self.changes = None, self.changes + 1


class Tick:
    def __init__(self) -> None:
        self.on_trip: Any = lambda: None
        self.up = True

    async def touch(self) -> None:
        self.on_trip()
        if not self.up:
            raise RedisUnavailable("down")


class Quota:
    """A limiter with `left` events to grant. Like the real one it travels in the tick's round trip, and goes on without Redis."""

    def __init__(self, tick: Tick) -> None:
        self.left = 1_000
        self.taken: list[int] = []
        self._tick = tick

    def ask(self, principal: Principal, count: int) -> asyncio.Future[Allowance]:
        return asyncio.ensure_future(self.take(principal, count))

    async def take(self, _principal: Principal, count: int) -> Allowance:
        self.taken.append(count)
        granted = min(count, self.left)
        self.left -= granted
        if granted:
            with suppress(RedisUnavailable):
                await self._tick.touch()
        return Allowance(limit=1_000, granted=granted, remaining=self.left, reset_s=7)


class Types:
    """A catalogue that refuses one type."""

    def __init__(self) -> None:
        self.refused = "refused.type"

    def known(self, _organization: str, _mode: str) -> Types:
        return self

    def has(self, event_type: str) -> bool:
        return event_type == self.refused

    def check(self, event_type: str, _payload: bytes) -> None:
        if event_type == self.refused:
            raise ProblemError(INVALID_EVENT, "It does not conform.")


class Held:
    """Reservations whose next outcomes are chosen; the last one stays. `told` is what came after the append."""

    def __init__(self, tick: Tick) -> None:
        self.outcomes: list[Outcome] = ["reserved"]
        self.told: list[tuple[str, EventId]] = []
        self._tick = tick

    async def reserve(self, _key: str, event_id: EventId, _fingerprint: str, _owner: str) -> Reservation:
        await self._tick.touch()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        return Reservation(outcome, event_id if outcome == "reserved" else HELD, 1_500 if outcome == "pending" else 0)

    async def reserve_all(self, wanted: Sequence[Wanted]) -> list[Reservation | None]:
        async def one(asked: Wanted) -> Reservation | None:
            try:
                return await self.reserve(*asked)
            except RedisUnavailable:
                return None

        return list(await asyncio.gather(*(one(asked) for asked in wanted)))

    async def confirm_all(self, confirmed: Sequence[Confirmed]) -> int:
        try:
            await self._tick.touch()
        except RedisUnavailable:
            return len(confirmed)
        self.told += [("confirm", one.event_id) for one in confirmed]
        return 0

    def confirm(self, _key: str, event_id: EventId, _fingerprint: str, _at_ms: int, on_told: Callable[[bool], None]) -> None:
        if self._tick.up:
            self.told.append(("confirm", event_id))
        asyncio.get_running_loop().call_soon(on_told, self._tick.up)

    async def release(self, _key: str, event_id: EventId, _owner: str) -> None:
        await self._tick.touch()
        self.told.append(("release", event_id))


class Log:
    def __init__(self) -> None:
        self.events: list[Ingested] = []
        self.headers: list[dict[str, bytes | None]] = []
        self.error: ProblemError | None = None
        self.on_append: Any = lambda: None
        self.slow_s = 0.0

    def send(self, organization: str, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> asyncio.Future[Report]:
        return asyncio.ensure_future(self.append(organization, value, headers))

    async def confirmed(self, sent: asyncio.Future[Report]) -> Report:
        return await sent

    async def append(self, organization: str, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Report:
        assert organization == ORGANIZATION
        await asyncio.sleep(self.slow_s)
        if self.error is not None:
            raise self.error
        self.on_append()
        self.events.append(codec.ingested.decode(value))
        self.headers.append(dict(headers))
        return Report("events.ingested", 0, 1, 1_000)


class Api:
    """The whole ASGI application over chosen collaborators. `data_keys`: none, for organizations without encryption."""

    def __init__(self, settings: ApiSettings | None = None, *, docs: bool = True, data_keys: object = None) -> None:
        self.tick, self.log, self.types = Tick(), Log(), Types()
        self.auth = Auth(self.tick)
        self.held = Held(self.tick)
        self.probes: dict[str, bool | str] = {"kafka": True, "postgres": True, "redis": True}
        self.asked = 0
        self.quota = Quota(self.tick)
        admission = BatchAdmission(
            SETTINGS,
            SYSTEM,
            cast(Authenticator, self.auth),
            cast(Limiter, self.quota),
            cast(Catalogue, self.types),
            cast(Reservations, self.held),
            cast(Appender, self.log),
            cast(DataKeys, data_keys),
        )
        hot = {"/events": PostEvents(SETTINGS, SYSTEM, admission), "/events/batch": PostBatch(SETTINGS, SYSTEM, admission)}

        def probe(name: str) -> Any:
            async def answer() -> bool | str:
                self.asked += 1
                return self.probes[name]

            return answer

        readiness = Readiness(SYSTEM, {"kafka": probe("kafka"), "postgres": probe("postgres")}, {"redis": probe("redis")})
        router = APIRouter()

        @router.get("/breaks")
        async def breaks() -> None:
            raise RuntimeError("secret detail")

        @router.post("/reads")
        async def reads(request: Request) -> None:
            async for _ in request.stream():
                pass

        @router.get("/endless")
        async def endless() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                while True:
                    yield b"more"
                    await asyncio.sleep(0)

            return StreamingResponse(parts())

        @asynccontextmanager
        async def background() -> AsyncIterator[None]:
            yield

        self.app: Application = create_app(
            settings or ApiSettings(), SYSTEM, hot, readiness, [router], version="1", background=background, docs=docs
        )

    async def post(self, body: object = None, headers: list[tuple[bytes, bytes]] | None = None, **changes: Any) -> Answer:
        event = {"type": "a.b", "payload": {"n": 1}, **changes} if body is None else body
        content = event if isinstance(event, bytes) else json.dumps(event).encode()
        return await self.call("POST", "/events", HEADERS if headers is None else headers, [content])

    async def batch(self, events: object, content_type: bytes = b"application/json") -> Answer:
        content = events if isinstance(events, bytes) else json.dumps(events).encode()
        return await self.call("POST", "/events/batch", [HEADERS[0], (b"content-type", content_type)], [content])

    async def call(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]] = HEADERS, parts: Sequence[bytes | None] = (b"",)
    ) -> Answer:
        """`None` among the parts: nothing more comes for now. Past the last part the caller has gone."""
        messages = iter(parts)
        last = len(parts)
        sent: list[Any] = []
        given = 0

        async def receive() -> dict[str, Any]:
            nonlocal given
            given += 1
            part = next(messages, b"gone")
            if part is None:
                await asyncio.sleep(60)
            return {"type": "http.disconnect"} if part == b"gone" else {"type": "http.request", "body": part, "more_body": given < last}

        async def send(message: Any) -> None:
            whole = sent and sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body")
            assert not whole, "sent behind a whole answer"
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path, "scheme": "http",
            "raw_path": path.encode(), "query_string": b"", "headers": headers, "root_path": "", "server": ("x", 1), "client": ("y", 2),
        }  # fmt: skip
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:  # Starlette raises again what it has answered, for the server's log
            assert sent, error
        self.read = given
        if not sent:
            return Answer(0, {}, {})
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        document = json.loads(content) if content and "json" in found.get("content-type", "") else {}
        answer = Answer(sent[0]["status"], found, document, len(content))
        if answer.status >= 400 and method != "HEAD" and path != "/health/ready":
            assert found["content-type"] == "application/problem+json"
            assert answer.body["type"].startswith("urn:triggers:problem:")
            assert answer.body["status"] == answer.status
            assert answer.body["detail"]
            assert answer.body["request_id"] == found["x-request-id"]
        return answer

    @property
    def only(self) -> Ingested:
        assert len(self.log.events) == 1
        return self.log.events[0]


def slug(answer: Answer) -> str:
    return str(answer.body["type"]).rsplit(":", 1)[1]
