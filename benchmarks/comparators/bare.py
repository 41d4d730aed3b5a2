"""Servers that read the body and answer as many bytes as ours do: `bare:fastapi` and `bare:asgi`, on the same uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

_ANSWER = {"id": "evt_01a20c78-b4b0-7a46-ba30-3adf50703289", "status": "pending", "received_at": "2026-11-24T00:00:00.000Z"}
_ANSWER_BYTES = JSONResponse(_ANSWER).body

fastapi = FastAPI()


@fastapi.post("/events", status_code=201)
async def events(request: Request) -> dict[str, str]:
    await request.body()
    return _ANSWER


async def asgi(scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER_BYTES))]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER_BYTES})
