"""The whole ASGI application over collaborators whose answers are chosen: no sockets, no servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from access.auth import Authenticator
from access.data_keys import DataKeys
from access.limits import Limiter
from ingest.app import Application, Readiness, create_app
from ingest.append import Appender
from ingest.batches import BatchAdmission
from ingest.catalogue import Catalogue
from ingest.fast_path import FastPath
from ingest.idempotency import Reservations
from ingest.middleware import security_headers
from ingest.routes import PostBatch, PostEvents
from runtime.clock import SYSTEM
from runtime.settings import ApiSettings, IngestSettings
from schemas.events import Ingested
from tests.unit.ingest.fakes import Auth, Held, Log, Quota, Tick, Types

HEADERS = [(b"x-api-key", b"k"), (b"content-type", b"application/json")]
SETTINGS = IngestSettings(request_deadline_s=0.3, batch_deadline_s=5.0)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    size: int = 0


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
            self.log.has,
        )
        single = PostEvents(SETTINGS, SYSTEM, admission)
        hot = {"/events": single, "/events/batch": PostBatch(SETTINGS, SYSTEM, admission)}
        parts: Any = (SETTINGS, SYSTEM, single, self.auth, self.quota, self.types, self.held, self.log, self.tick, security_headers(0))
        fast_path = FastPath(*parts)

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
            settings or ApiSettings(), SYSTEM, hot, readiness, [router], version="1", background=background, fast_path=fast_path,
            docs=docs,
        )  # fmt: skip

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
