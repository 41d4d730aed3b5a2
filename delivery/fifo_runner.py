"""One FIFO endpoint of a partition: its events one after the other, each until it is delivered or given up.

What is waited for is waited for here, in memory and in nobody's way: a retry's time, the endpoint being enabled, a circuit breaker.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Literal, NamedTuple

from delivery import fifo_places
from delivery.context import Context, Task
from delivery.endpoints import Endpoint
from delivery.facts import Source
from delivery.fifo_commits import Commits
from delivery.fifo_queue import Item, Queue
from delivery.fifo_source import Source as Log
from delivery.fifo_steps import Disabled, Steps
from delivery.journal import Journal
from delivery.outbox import Outbox
from schemas.deliveries import FifoPosition, PastAttempt, RetryTask
from schemas.ids import EndpointId
from schemas.topics import DELIVERIES_FIFO

#: What is waited for longer than this holds no events in memory.
_LONG_MS: Final = 5_000
#: An endpoint that has nothing to do writes its position again after so many records of the journal, and after so much time: a new owner
#: begins to read there, and an older position that was written late is gone before compaction may prefer it.
_BEHIND_MAX: Final = 5_000
_AGAIN_MS: Final = 20 * 60_000

State = Literal["idle", "busy", "waiting", "blocked", "disabled"]


class _PutOff(NamedTuple):
    """An attempt that was due and not made (see `RetryTask`)."""

    until_ms: int
    parked: int = 0
    turn: str | None = None


_NOT: Final = _PutOff(0)


class Runner:
    """`run` ends when it is told to `stop`, or when the endpoint was deleted and nothing is left to say of it."""

    def __init__(
        self, context: Context, partition: int, journal: Journal, outbox: Outbox, log: Log, position: FifoPosition, *, behind: bool
    ) -> None:
        self._context = context
        self._journal = journal
        self._steps = Steps(context, partition, journal, outbox)
        self._commits = Commits(outbox, position)
        self._log = log
        self._queue = Queue(context.fifo_room, behind=behind)
        self._position = position
        self._put_off = _NOT
        self._endpoint: Endpoint | None = None
        self._deleted = False
        self.stopping = False
        self._wake = asyncio.Event()
        self._written_ms = 0
        self._written_at = -1
        self.state: State = "idle"
        #: Whether it has come to an attempt that is not in the journal: the first of its own.
        self.caught_up = False
        #: Accepted offset of the event whose step it is in the middle of: the journal must remember that.
        self.at: int | None = None
        #: When the event it is at was received.
        self.since_ms: int | None = None

    @property
    def endpoint_id(self) -> EndpointId:
        return self._position.endpoint_id

    def offer(self, item: Item) -> None:
        """An event that was planned for it just now."""
        self._queue.offer(item)
        self._wake.set()

    def told(self, endpoint: Endpoint | None) -> None:
        """The endpoint as it is now; None: deleted."""
        if endpoint != self._endpoint or endpoint is None:
            self._endpoint, self._deleted = endpoint, endpoint is None
            self._wake.set()

    def stop(self) -> None:
        """What is under way ends; nothing more begins."""
        self.stopping = True
        self._wake.set()

    def let_go(self) -> None:
        """Nothing of it is held any more."""
        self._queue.drop()

    def commit(self) -> None:
        """Write the position as it is."""
        if self.state == "idle" and not self._queue and not self._queue.behind:
            self._position = fifo_places.passed(self._position, self._log.end)
        self._written_ms, self._written_at = self._context.clock.now_ms(), self._position.journal_offset
        self._commits.write(self._position)

    def commit_if_long_ago(self) -> None:
        behind = self._log.end - self._written_at if self.state == "idle" else 0
        if behind > _BEHIND_MAX or self._context.clock.now_ms() - self._written_ms > _AGAIN_MS:
            self.commit()

    async def settled(self) -> None:
        """Until its position is in the log."""
        await self._commits.settled()

    async def run(self) -> None:
        while not self.stopping:
            if self._queue:
                await self._go_on(self._queue.head)
            elif self._queue.behind:
                await self._read_on()
            elif self._deleted:
                self._commits.write(None)
                return
            else:
                self.state, self.since_ms, self.caught_up = "idle", None, True
                await self._sleep(None)

    async def _read_on(self) -> None:
        """From the log, as long as that is ahead of us."""
        position = self._position
        items, next_offset, whole = await self._log.read(position)
        for item in items:
            self._queue.fill(item)
        if not items:
            self._position = fifo_places.passed(position, next_offset)
        self._queue.behind = not (whole and next_offset >= self._log.end)

    async def _go_on(self, item: Item) -> None:
        """One step of the event that is next."""
        self.since_ms = item.event.received_at_ms
        task = self._task(item)
        if not self._journal.has_attempt(task.attempt_key):
            self.caught_up = True
            if await self._waited(task):
                return  # things may have changed: look again
        self.state, self.at = "busy", item.accepted_offset
        try:
            await self._step(item, task)
        except Disabled:
            return
        finally:
            self.at = None

    async def _step(self, item: Item, task: Task) -> None:
        later = await self._steps.take(task)
        if later is None:
            await self._unblocked()
            self._queue.pop()
            self._position, self._put_off = fifo_places.done(self._position, item.plan_offset, item.accepted_offset), _NOT
            self.commit()
        elif later.attempt == task.attempt:
            self._put_off = _PutOff(later.not_before_ms, later.parked, later.turn)
        else:
            await self._failed(task, later)

    def _task(self, item: Item) -> Task:
        position, put_off = self._position, self._put_off
        attempt, history, not_before_ms = 1, list[PastAttempt](), put_off.until_ms
        if position.event_id == item.event.id:
            attempt, history = position.attempt, position.history
            if not self._is_released():
                not_before_ms = max(not_before_ms, position.not_before_ms)
        return Task(
            item.event, item.value, self.endpoint_id, attempt, history, Source(DELIVERIES_FIFO, item.accepted_offset), item.headers,
            0, put_off.parked, put_off.turn, not_before_ms,
        )  # fmt: skip

    async def _failed(self, task: Task, later: RetryTask) -> None:
        endpoint = await self._context.endpoints.get(task.endpoint_id)
        made = self._journal.failed(task.attempt_key)
        blocked = self._position.blocked or (endpoint is not None and task.attempt > len(endpoint.schedule_s))
        self._put_off = _NOT
        self._position = fifo_places.failed(self._position, later, blocked=blocked)
        self.commit()
        if blocked and endpoint is not None and made is not None:
            await self._context.endpoints.note_blocked(task.endpoint_id, task.event.id, made.started_at_ms)
            await self._steps.announce_blocked(endpoint, task.event.type, made)

    async def _unblocked(self) -> None:
        """Before the position says so: done again after a crash, it changes nothing more."""
        if self._position.blocked:
            await self._context.endpoints.note_unblocked(self.endpoint_id)

    # -- waiting

    async def _waited(self, task: Task) -> bool:
        """Whether anything had to be waited for."""
        if (early_ms := task.not_before_ms - self._context.clock.now_ms()) > 0 and not self._deleted:
            self.state = "blocked" if self._position.blocked else "waiting"
            if early_ms > _LONG_MS:
                self._queue.drop()
            await self._sleep(early_ms / 1000)
            return True
        if self._deleted or await self._context.endpoints.get(self.endpoint_id) is not None:
            return False
        self.told((await self._context.endpoints.there([self.endpoint_id])).get(self.endpoint_id))
        if self._deleted or (self._endpoint is not None and self._endpoint.enabled):
            return False
        self.state = "disabled"
        self._queue.drop()
        await self._sleep(None)
        return True

    def _is_released(self) -> bool:
        """Whether it does not block any more: the event is tried once more at once, and given up if that fails."""
        return self._position.blocked and self._endpoint is not None and not self._endpoint.fifo_block

    async def _sleep(self, seconds: float | None) -> None:
        """For so long at the most, until something is told."""
        if self.stopping:
            return
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
