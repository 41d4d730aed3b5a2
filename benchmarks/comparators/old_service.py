"""The architecture this service replaces, written as its authors described it: FastAPI, a Postgres row and Redis calls per request.

Per event: key from Redis (Postgres when it is not there), a rate limit and an idempotency key in Redis, one committed INSERT, 201. What its
201 means: the row is committed. It has no dedup beyond Redis, no inbox and no webhooks.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import redis.asyncio as redis
from fastapi import Depends, FastAPI, Header, HTTPException
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

_TABLES = """
CREATE SCHEMA IF NOT EXISTS old;
CREATE TABLE IF NOT EXISTS old.events (
    id uuid PRIMARY KEY, organization text NOT NULL, type text NOT NULL, payload jsonb NOT NULL,
    status text NOT NULL DEFAULT 'pending', created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS events_inbox ON old.events (organization, created_at) WHERE status = 'pending';
"""
_LIMIT_PER_MINUTE = 10_000_000


class Event(BaseModel):
    type: str = Field(min_length=1, max_length=255)
    payload: dict[str, Any]
    idempotency_key: str | None = None


class Created(BaseModel):
    id: str
    status: str
    received_at: datetime


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncConnectionPool(os.environ["TRIGGERS_POSTGRES__DSN"], min_size=4, max_size=20, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(17)")
            await connection.execute(_TABLES)
        app.state.pool = pool
        app.state.redis = redis.from_url(os.environ["TRIGGERS_REDIS__URL"], max_connections=64)
        yield


app = FastAPI(lifespan=lifespan)


async def organization(x_api_key: str = Header()) -> str:
    name = "old:key:" + hashlib.sha256(x_api_key.encode()).hexdigest()
    found = await app.state.redis.get(name)
    if found is not None:
        return str(found.decode())
    async with app.state.pool.connection() as connection:
        cursor = await connection.execute("SELECT organization FROM control.api_keys WHERE prefix = %s", (x_api_key[:12],))
        row = await cursor.fetchone()
    if row is None:
        raise HTTPException(401)
    await app.state.redis.set(name, row[0], ex=300)
    return str(row[0])


@app.post("/events", status_code=201, response_model=Created)
async def create(event: Event, owner: str = Depends(organization)) -> Created:
    minute = int(datetime.now(UTC).timestamp() // 60)
    async with app.state.redis.pipeline() as pipeline:
        pipeline.incr(f"old:rate:{owner}:{minute}").expire(f"old:rate:{owner}:{minute}", 120)
        used, _ = await pipeline.execute()
    if used > _LIMIT_PER_MINUTE:
        raise HTTPException(429)
    if event.idempotency_key and not await app.state.redis.set(f"old:idem:{owner}:{event.idempotency_key}", 1, nx=True, ex=86_400):
        raise HTTPException(409)
    made = uuid.uuid4()
    async with app.state.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO old.events (id, organization, type, payload) VALUES (%s, %s, %s, %s)",
            (made, owner, event.type, Jsonb(event.payload)),
        )
    return Created(id=str(made), status="pending", received_at=datetime.now(UTC))
