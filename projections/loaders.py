"""Several processes that load, each other partitions: Python is what a load waits for, and a process of it uses one core.

This process is one of them. The others (`projections.loader`) are told which partition comes next over their standard input, tell over
their standard output how far they are, and end when their input does: with this process, however it ends. Whoever has nothing to do takes
the largest partition that is left.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec

from projections.fold import Fold
from projections.loading import Loading, open_loading
from projections.log_reader import LogReader, Place, Range
from projections.offsets import generation
from projections.sessions import RebuildError
from projections.shadow import Shadow
from projections.sideways import together
from runtime.settings import Settings

#: Told of each batch: how many records it had.
Counted = Callable[[int], None]


class Job(msgspec.Struct, frozen=True):
    """What a loader is told first. Sections of the settings, the backend that owns the shadow, the topics' generation."""

    target: str
    owner: int
    generation: int
    kafka: dict[str, Any]
    postgres: dict[str, Any]
    rebuild: dict[str, Any]


class Part(msgspec.Struct, frozen=True):
    """What it is told to load, one after the other. It answers with `Told`s until one is `done` or `failed`."""

    topic: str
    partition: int
    begin: int
    end: int


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    records: int = 0
    done: bool = False
    failed: str | None = None


class Other(NamedTuple):
    """A process that loads beside this one."""

    process: Process
    input: StreamWriter
    output: StreamReader


class Loaders:
    """Made by `loaders`."""

    def __init__(self, here: Loading, reader: LogReader, others: Sequence[Other]) -> None:
        self._here = here
        self._reader = reader
        self._others = others

    async def load(self, fold: Fold, ranges: Mapping[Place, Range], counted: Counted) -> None:
        """One topic. Raises `Fenced`, `LogError`, `confluent_kafka.KafkaException`, `psycopg.Error`; `RebuildError` for another process."""
        if not self._others or fold.rows is None:
            await self._read(ranges, counted)
            return
        left = deque(sorted(ranges.items(), key=lambda one: one[1].begin - one[1].end))

        async def here() -> None:
            while left:
                await self._read(dict([left.popleft()]), counted)

        async def there(other: Other) -> None:
            while left:
                await _tell(other, *left.popleft(), counted)

        await together(here(), *map(there, self._others))

    async def _read(self, ranges: Mapping[Place, Range], counted: Counted) -> None:
        async with aclosing(self._reader.read_ahead(ranges)) as batches:
            async for batch in batches:
                await self._here.load(batch)
                counted(sum(len(chunk.records) for chunk in batch))


async def _tell(other: Other, place: Place, part: Range, counted: Counted) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the answer that is not coming tells
        other.input.write(msgspec.json.encode(Part(*place, *part)) + b"\n")
        await other.input.drain()
    while line := await other.output.readline():
        told = msgspec.json.decode(line, type=Told)
        if told.failed is not None:
            raise RebuildError(f"{place[0]}[{place[1]}] could not be loaded: {told.failed}")
        if told.done:
            return
        counted(told.records)
    raise RebuildError(f"the process that loaded {place[0]}[{place[1]}] ended: run the same command again, it goes on where this one was")


@asynccontextmanager
async def loaders(settings: Settings, shadow: Shadow, reader: LogReader, processes: int) -> AsyncIterator[Loaders]:
    """So many, this one among them. Raises `OSError`, `psycopg.Error`."""
    others = [await _start(settings, shadow) for _ in range(processes - 1)]
    try:
        yield Loaders(await open_loading(shadow.connection, shadow.target), reader, others)
    finally:
        for other in others:
            with suppress(ProcessLookupError):
                other.process.kill()  # what it had not committed is loaded by whoever goes on
        for other in others:
            await other.process.wait()


async def _start(settings: Settings, shadow: Shadow) -> Other:
    """It imports, connects and waits while we go on. A session of its own: an interrupt from the terminal is for this process."""
    argv = [sys.executable, "-m", "projections.loader"]
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, start_new_session=True)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process was started without pipes")
    postgres = {**settings.postgres.model_dump(mode="json"), "dsn": settings.postgres.dsn.get_secret_value()}
    job = Job(
        shadow.target, shadow.connection.info.backend_pid, generation(), settings.kafka.model_dump(mode="json"), postgres,
        settings.rebuild.model_dump(mode="json"),
    )  # fmt: skip
    process.stdin.write(msgspec.json.encode(job) + b"\n")
    return Other(process, process.stdin, process.stdout)
