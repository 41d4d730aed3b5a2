"""One more process that loads, started by `projections.loaders`: `python -m projections.loader`.

It does what it is told on standard input, a line a job, and ends when that ends. Nobody else waits for what it does, so it can end at any
moment.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing, closing

import msgspec
import psycopg
from confluent_kafka import KafkaException

from projections.loaders import Job, Part, Told
from projections.loading import Loading, open_loading
from projections.log_reader import LogReader, Range
from projections.offsets import fold_generation
from projections.sessions import helping
from runtime import crashpoints
from runtime.lifecycle import settle_memory
from runtime.settings import KafkaSettings, PostgresSettings, RebuildSettings


async def work(job: Job, parts: asyncio.Queue[Part]) -> None:
    """Until it is cancelled. Raises what it meets."""
    fold_generation(job.generation)
    kafka, rebuild = KafkaSettings.model_validate(job.kafka), RebuildSettings.model_validate(job.rebuild)
    async with helping(PostgresSettings.model_validate(job.postgres), job.owner) as connection:
        loading = await open_loading(connection, job.target)
        with closing(LogReader(kafka, batch_records_max=rebuild.batch_records_max, stall_timeout_s=rebuild.stall_timeout_s)) as reader:
            while True:
                await _load(loading, reader, await parts.get())
                _say(Told(done=True))


async def _load(loading: Loading, reader: LogReader, part: Part) -> None:
    async with aclosing(reader.read_ahead({(part.topic, part.partition): Range(part.begin, part.end)})) as batches:
        async for batch in batches:
            await loading.load(batch)
            _say(Told(records=sum(len(chunk.records) for chunk in batch)))


def _say(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


def _listen(put: Callable[[Part], object]) -> None:
    """The end of the input is the end of this process: whoever started it is gone, or done."""
    for line in sys.stdin.buffer:
        put(msgspec.json.decode(line, type=Part))
    os._exit(0)


async def _run(job: Job) -> None:
    parts: asyncio.Queue[Part] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(lambda part: loop.call_soon_threadsafe(parts.put_nowait, part),), daemon=True).start()
    await work(job, parts)


def main() -> None:
    crashpoints.arm_from_environment()
    settle_memory()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        asyncio.run(_run(job))
    except (RuntimeError, OSError, KafkaException, psycopg.Error) as error:
        _say(Told(failed=str(error).strip() or type(error).__name__))
        sys.exit(1)


if __name__ == "__main__":
    main()
