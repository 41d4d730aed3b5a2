from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
import pytest
from structlog.testing import capture_logs

from access import last_used
from access.last_used import LastUsed
from runtime.postgres import Pool
from tests.unit.access.fakes import Clock


class Database:
    """Takes what is written; `error` is raised instead."""

    def __init__(self) -> None:
        self.written: list[dict[str, int]] = []
        self.error: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Database]:
        self.meanwhile()
        if self.error is not None:
            raise self.error
        yield self

    async def execute(self, _: bytes, values: dict[str, Any]) -> None:
        self.written.append(dict(zip(values["ids"], values["used_at_ms"], strict=True)))


@pytest.fixture
def database() -> Database:
    return Database()


async def test_each_key_is_written_once_with_its_last_use_and_nothing_when_nothing_was_used(database: Database) -> None:
    clock = Clock()
    used = LastUsed(clock)
    used.note("a")
    clock.now_s += 1
    used.note("b")
    used.note("a")
    await used.write(cast(Pool, database))
    await used.write(cast(Pool, database))
    assert database.written == [{"a": 1_001_000, "b": 1_001_000}]


async def test_what_could_not_be_written_is_kept_and_a_later_use_wins(database: Database) -> None:
    clock = Clock()
    used = LastUsed(clock)
    used.note("a")
    used.note("b")
    clock.now_s += 1
    database.error, database.meanwhile = psycopg.OperationalError("away"), lambda: used.note("a")
    with pytest.raises(psycopg.OperationalError):
        await used.write(cast(Pool, database))
    database.error, database.meanwhile = None, lambda: None
    await used.write(cast(Pool, database))
    assert database.written == [{"a": 1_001_000, "b": 1_000_000}]


async def test_the_task_goes_on_after_a_failure_and_writes_what_is_left_at_the_end(database: Database) -> None:
    used = LastUsed(Clock())
    used.note("a")
    database.error = psycopg.ProgrammingError("no such table yet")
    with capture_logs() as logged:
        task = asyncio.create_task(used.keep_writing(cast(Pool, database), 0.0))
        async with asyncio.timeout(5):
            while not logged:
                await asyncio.sleep(0)
            database.error = None
            while not database.written:
                await asyncio.sleep(0)
    slow = asyncio.create_task(used.keep_writing(cast(Pool, database), 3_600))
    await asyncio.sleep(0)
    used.note("b")
    for one in (task, slow):
        one.cancel()
    await asyncio.gather(task, slow, return_exceptions=True)
    assert database.written == [{"a": 1_000_000}, {"b": 1_000_000}]
    assert {line["event"] for line in logged} == {"last_used.not_written"}


def test_what_is_gathered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_used, "KEYS_MAX", 10)
    used = LastUsed(Clock())
    for number in range(100):
        used.note(f"key_{number}")
    assert len(used) == 10
