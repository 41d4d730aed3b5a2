"""The FIFO endpoints of one partition while it is owned: a runner for each, told of what is planned and of what becomes of endpoints.

An endpoint has a runner from its first plan on. Nothing here holds the partition's lanes: they are done with an event when its plan is
in the log, whatever its FIFO endpoints make of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from delivery import fifo_places
from delivery.context import Context
from delivery.fifo_queue import Item
from delivery.fifo_runner import Runner
from delivery.fifo_source import Source
from delivery.journal import Journal
from delivery.outbox import Outbox
from delivery.values import carried, ingested_value
from runtime.metrics import FIFO_ENDPOINTS, FIFO_LAG_SECONDS
from schemas.deliveries import FifoPosition, Planned
from schemas.events import Ingested
from schemas.ids import EndpointId
from schemas.records import Record

#: How often it is looked whether an endpoint that is waited for was changed; and whether any was deleted, in as many looks.
_LOOK_S: Final = 2.0
_LOOKS_FOR_ALL: Final = 15
_WAITED_FOR: Final = frozenset({"waiting", "blocked", "disabled"})
_STATES: Final = ("idle", "busy", "waiting", "blocked", "disabled")

Begin = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Fifo:
    """From `start` to `stop`. `begin` makes a task whose failure ends the process."""

    def __init__(
        self, context: Context, partition: int, journal: Journal, outbox: Outbox, found: fifo_places.Found, *, begin: Begin
    ) -> None:
        self._context = context
        self._partition = partition
        self._journal = journal
        self._outbox = outbox
        self._found = found
        self._begin = begin
        self._log = Source(context.pages, partition, found.end)
        self._runners: dict[EndpointId, Runner] = {}
        self._tasks: dict[EndpointId, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        for position, behind in self._found.starts():
            self._add(position, behind=behind).commit()  # one has none yet, and its plans are forgotten some day

    def planned(self, planned: Planned, journal_offset: int, event: Ingested, record: Record) -> None:
        """An event's plan is in the log. In the order of the log; without a gap after what the new owner found there."""
        for endpoint_id in planned.fifo:
            runner = self._runners.get(endpoint_id)
            if runner is None:
                runner = self._add(fifo_places.first(planned, endpoint_id, journal_offset), behind=False)
                runner.commit()
            runner.offer(Item(journal_offset, record.offset, event, ingested_value(record), carried(record)))
        self._log.end = journal_offset + 1

    def is_over(self, accepted_offset: int) -> bool:
        """Whether no endpoint is in the middle of a step of this event, between the journal's record and its position."""
        return all(runner.at != accepted_offset for runner in self._runners.values())

    def caught_up(self) -> bool:
        """Whether every endpoint has come to an attempt that no earlier owner has made."""
        return all(runner.caught_up for runner in self._runners.values())

    async def stop(self, timeout_s: float) -> None:
        """Let attempts that are under way end for a while; what waits is left to the next owner."""
        if self._looking is not None:
            self._looking.cancel()
        for runner in self._runners.values():
            runner.stop()
        if self._tasks and timeout_s > 0:
            settled = [asyncio.ensure_future(runner.settled()) for runner in self._runners.values()]
            await asyncio.wait([*self._tasks.values(), *settled], timeout=timeout_s)
            for one in settled:
                one.cancel()
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        for runner in self._runners.values():
            runner.let_go()
        self._measure(())

    def _add(self, position: FifoPosition, *, behind: bool) -> Runner:
        endpoint_id = position.endpoint_id
        runner = Runner(self._context, self._partition, self._journal, self._outbox, self._log, position, behind=behind)
        self._runners[endpoint_id] = runner
        self._tasks[endpoint_id] = self._begin(self._run(runner))
        if self._looking is None:
            self._looking = self._begin(self._look())
        return runner

    async def _run(self, runner: Runner) -> None:
        await runner.run()
        if not runner.stopping:
            del self._runners[runner.endpoint_id], self._tasks[runner.endpoint_id]

    async def _look(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            looks += 1
            runners = list(self._runners.values())
            for_all = looks % _LOOKS_FOR_ALL == 0
            asked = [runner for runner in runners if for_all or runner.state in _WAITED_FOR]
            found = await self._context.endpoints.there([runner.endpoint_id for runner in asked])
            for runner in asked:
                runner.told(found.get(runner.endpoint_id))
            for runner in runners:
                runner.commit_if_long_ago()
            self._measure(runners)

    def _measure(self, runners: Iterable[Runner]) -> None:
        states = Counter(runner.state for runner in runners)
        for state in _STATES:
            FIFO_ENDPOINTS.labels(self._partition, state).set(states[state])
        since = [runner.since_ms for runner in runners if runner.since_ms is not None and runner.state != "disabled"]
        now_ms = self._context.clock.now_ms()
        FIFO_LAG_SECONDS.labels(self._partition).set(max(0, now_ms - min(since)) / 1000 if since else 0)
