"""Replays: what was accepted is read again from the log and delivered again, page by page, as fast as was asked for.

The owner of the partition works a page off, asks in the log for the next one, notes it in the control plane, and only then is this one
done. Whoever takes over in the middle works the page off again: what it led to is in the journal, because its source is not committed.
A page that the control plane has beyond is a copy and is left alone.

A page ends early when the replay is paused, cancelled, or has taken some seconds, so that no record stays under way for long. Paused, it
leaves its next page in the control plane and nothing in the log: it holds nobody, however long that is. A replay waits where it is in
front of an open circuit breaker and for a turn, never has more than a few deliveries under way, and reads with a consumer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import KafkaException

from access import event_filters
from access.replay_range import Selection
from delivery.context import Context, Task
from delivery.deliver import Deliveries
from delivery.endpoints import Endpoint
from delivery.facts import Source
from delivery.journal import Asked, Journal, Page
from delivery.outbox import Outbox
from delivery.recover import requested
from delivery.replay_state import Ended, Look
from delivery.values import carried, ingested_value
from runtime.crashpoints import reach
from runtime.kafka import Headers
from runtime.metrics import REPLAY_PAGES
from runtime.telemetry import log
from schemas import codec
from schemas.deliveries import Replay, Requested
from schemas.events import Ingested
from schemas.ids import EndpointId, RoundId
from schemas.records import Record
from schemas.topics import DELIVERIES_REQUESTS, EVENTS_ACCEPTED

#: Events of one page, bytes of them, and how often the log is read on for one that finds none.
_EVENTS_MAX: Final = 100
_BYTES_MAX: Final = 4 * 1024 * 1024
_READS_MAX: Final = 10
#: A page takes nothing more after this.
_PAGE_S: Final = 10.0
#: Deliveries of one replay at one endpoint under way at once.
_AT_ONCE: Final = 4
#: Between two looks at whether it goes on and how fast.
_LOOK_S: Final = 0.5
_READ_AGAIN_S: Final = 1.0
#: What a replay may make up for when it was held up, in seconds.
_CATCH_UP_S: Final = 0.1

#: Journals rounds that are not journalled yet (`delivery.recover`).
Plan = Callable[[Sequence[tuple[Requested, Source, Headers]]], Awaitable[None]]


class Item(NamedTuple):
    """An event to deliver. `ingested_offset`: of its record in `events.ingested`."""

    record: Record
    ingested_offset: int
    event: Ingested


class _Read(NamedTuple):
    """Events of a page in order, and the replay as it is behind all that was read."""

    items: list[Item]
    behind: Replay


class _Watch:
    """Whether a replay goes on with a page and how fast; asked twice a second."""

    def __init__(self, context: Context, replay: Replay, first: Look) -> None:
        self._context = context
        self._replay = replay
        self._began_s = self._looked_s = context.clock.monotonic_s()
        self.last = first

    async def goes_on(self) -> bool:
        now_s = self._context.clock.monotonic_s()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self.last = await self._context.replays.look(self._replay) or self.last._replace(state="cancelled")
        return self.last.state == "running" and now_s - self._began_s < _PAGE_S


class Replays:
    """Of one partition while it is owned."""

    def __init__(self, context: Context, partition: int, journal: Journal, outbox: Outbox, deliveries: Deliveries, *, plan: Plan) -> None:
        self._context = context
        self._partition = partition
        self._journal = journal
        self._outbox = outbox
        self._deliveries = deliveries
        self._plan = plan
        #: One page of a replay and endpoint at a time: there may be copies.
        self._under_way: dict[tuple[RoundId, EndpointId], asyncio.Event] = {}
        #: When the next delivery of a replay to an endpoint may begin, in seconds.
        self._next_s: dict[tuple[RoundId, EndpointId], float] = {}

    async def page(self, replay: Replay, source: Source, headers: Headers) -> None:
        """Work one page off and ask for the next, unless the control plane is beyond it."""
        place = (replay.round, replay.endpoint_id)
        while (other := self._under_way.get(place)) is not None:
            await other.wait()
        self._under_way[place] = asyncio.Event()
        try:
            look = await self._context.replays.look(replay)
            if look is None:
                log.warning("replay.unknown", round=replay.round, endpoint_id=replay.endpoint_id, page=replay.page)
            elif look.page > replay.page or look.ended is not None:
                return
            elif self._journal.has_page(_page(following := _beyond(replay))):
                await self._context.replays.passed(following)
            else:
                await self._context.replays.begin(replay)
                await self._work_off(replay, _Watch(self._context, replay, look), source, headers)
        finally:
            self._under_way.pop(place).set()

    async def _work_off(self, replay: Replay, watch: _Watch, source: Source, headers: Headers) -> None:
        endpoint = await self._endpoint(replay, fresh=True)
        if endpoint is None:
            await self._end(_beyond(replay), "endpoint_missing")
            return
        try:
            found = await self._read(replay, endpoint)
        except LookupError as error:
            log.warning("replay.log_missing", round=replay.round, endpoint_id=replay.endpoint_id, error=str(error))
            await self._end(_beyond(replay), "log_missing")
            return
        begun = await self._deliver(replay, watch, found.items, source)
        following = found.behind if begun == len(found.items) else _before(found.items[begun], replay)
        following = msgspec.structs.replace(following, page=replay.page + 1, begun=replay.begun + begun)
        REPLAY_PAGES.inc()
        reach("replay.before_next")
        self._context.guard.check()
        if watch.last.state == "cancelled":
            await self._end(following, "cancelled")
        elif following.next_offset >= following.until_offset:
            await self._end(following, "done")
        elif await self._endpoint(replay) is None:
            await self._end(following, "endpoint_missing")
        elif watch.last.state != "paused" or not await self._context.replays.park(following):
            await self._ask_for(following, source, headers)
        reach("replay.after_page")

    async def _read(self, replay: Replay, endpoint: Endpoint) -> _Read:
        """The next events, paused or not: an earlier life may have begun some. Raises `LookupError` for what the log does not hold.
        The broker is waited for.
        """
        selection = Selection(
            replay.organization, replay.mode, since_ms=replay.since_ms, until_ms=replay.until_ms, types=replay.types,
            ingested_high=replay.ingested_high,
        )  # fmt: skip
        offset, items, reads = replay.next_offset, list[Item](), 0
        while offset < replay.until_offset and not items and reads < _READS_MAX:
            found = dict[int, tuple[int, Ingested]]()
            high = selection.ingested_high

            def wanted(key: bytes | None, value: bytes | None, at: int, found: dict[int, tuple[int, Ingested]] = found) -> bool:
                accepted = selection.take(key, value)
                if accepted is None or not event_filters.delivers(endpoint.event_types, accepted.event.type):
                    return False
                found[at] = (accepted.ingested.offset, accepted.event)
                return True

            try:
                page = await self._context.replay_pages.read(
                    EVENTS_ACCEPTED, self._partition, offset, replay.until_offset, wanted, records_max=_EVENTS_MAX, bytes_max=_BYTES_MAX
                )
            except (KafkaException, TimeoutError) as error:
                log.warning("replay.waiting", round=replay.round, endpoint_id=replay.endpoint_id, error=str(error))
                selection.ingested_high = high
                await asyncio.sleep(_READ_AGAIN_S)
                continue
            items = [Item(record, *found[record.offset]) for record in page.records]
            offset, reads = page.next_offset, reads + 1
        return _Read(items, msgspec.structs.replace(replay, next_offset=offset, ingested_high=selection.ingested_high))

    async def _deliver(self, replay: Replay, watch: _Watch, items: Sequence[Item], source: Source) -> int:
        """How many of them were begun, in order. All that were have led to what follows them.

        What an earlier life began is begun whatever has to be waited for: behind this page nobody remembers it for long.
        """
        at_once, begun = asyncio.Semaphore(_AT_ONCE), 0

        async def one(item: Item, *, begun_before: bool) -> None:
            try:
                headers = carried(item.record)
                await self._plan([(requested(replay, item.event.id), source, headers)])
                reach("replay.after_plan")
                value = ingested_value(item.record)
                await self._deliveries.step(
                    Task(item.event, value, replay.endpoint_id, 1, (), source, headers, round=replay.round, cause=replay.cause)
                )
                reach("replay.in_page")
            finally:
                if not begun_before:
                    self._context.replay_places.release()
                at_once.release()

        async with asyncio.TaskGroup() as under_way:
            for item in items:
                await at_once.acquire()
                begun_before = self._journal.is_asked(Asked(item.event.id, replay.endpoint_id, replay.round))
                if not begun_before and not await self._may_begin(replay, watch):
                    break
                under_way.create_task(one(item, begun_before=begun_before))
                begun += 1
        return begun

    async def _may_begin(self, replay: Replay, watch: _Watch) -> bool:
        """Wait for the next delivery's time and place. False where the page is to end, or the endpoint is gone."""
        clock, place = self._context.clock, (replay.round, replay.endpoint_id)
        while await watch.goes_on():
            endpoint = await self._endpoint(replay)
            if endpoint is None:
                return False
            free_s = (self._context.gates.of(endpoint).free_at_ms() - clock.now_ms()) / 1000
            wait_s = max(free_s, self._next_s.get(place, 0.0) - clock.monotonic_s())
            if wait_s <= 0 and self._context.replay_places.locked():
                wait_s = _LOOK_S / 10
            if wait_s <= 0:
                await self._context.replay_places.acquire()
                now_s = clock.monotonic_s()
                self._next_s[place] = max(self._next_s.get(place, now_s), now_s - _CATCH_UP_S) + 1 / watch.last.rate_per_s
                return True
            await asyncio.sleep(min(wait_s, _LOOK_S))
        return False

    async def _endpoint(self, replay: Replay, *, fresh: bool = False) -> Endpoint | None:
        """None where nothing may be sent any more."""
        found = await self._context.endpoints.get(replay.endpoint_id, fresh=fresh)
        return found if found is not None and (found.organization, found.mode) == (replay.organization, replay.mode) else None

    async def _ask_for(self, following: Replay, source: Source, headers: Headers) -> None:
        report = await self._outbox.append(DELIVERIES_REQUESTS, codec.encode(following), following.organization, None, headers)
        self._journal.add_page(DELIVERIES_REQUESTS, report.offset, _page(following), self._context.clock.now_ms(), source)
        reach("replay.after_next")
        await self._context.replays.progress(following)

    async def _end(self, following: Replay, why: Ended) -> None:
        await self._context.replays.end(following, why)
        self._next_s.pop((following.round, following.endpoint_id), None)
        log.info("replay.ended", round=following.round, endpoint_id=following.endpoint_id, deliveries=following.begun, why=why)


def _page(replay: Replay) -> Page:
    return Page(replay.round, replay.page, replay.endpoint_id)


def _beyond(replay: Replay) -> Replay:
    """The page that will not come, so that no copy of this one is worked off."""
    return msgspec.structs.replace(replay, page=replay.page + 1)


def _before(item: Item, replay: Replay) -> Replay:
    """The replay as it is in front of an event: whatever is copied between the last one and this one is below it."""
    return msgspec.structs.replace(replay, next_offset=item.record.offset, ingested_high=item.ingested_offset - 1)
