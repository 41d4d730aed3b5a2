"""The verified rebuild: fold the log from its start beside the live tables, compare at one vector of offsets, put it in their place.

The vector is what the live tables say of themselves inside one snapshot: rows and offsets of a live fold share their transactions, so a
snapshot of the tables *is* the state at the offsets it shows, but for acks that the API wrote ahead (`projections.ahead`). The shadow is
folded to exactly there and never past the live folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from psycopg import IsolationLevel

from projections import acks
from projections.ahead import find_ahead, look_up, ranges_of
from projections.digests import Compared, Difference, compare
from projections.filling import fill
from projections.fold import Connection
from projections.log_reader import LogReader, Place, Range, bounds
from projections.offsets import fold_generation
from projections.sessions import RebuildError, connect
from projections.shadow import Shadow, Standing, standings
from projections.shadow_tables import SHADOW_SCHEMA
from projections.swap import Swap
from runtime import topics
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.postgres import FOLDS_SCHEMA
from runtime.settings import Settings

_NOWHERE: Final = Standing(0, -1)


class Progress(NamedTuple):
    """How far reading has come: records of this run, and seconds since it began to read."""

    stage: str
    done: int
    total: int
    seconds: float


@dataclass
class Report:
    """What a rebuild found and did. `offsets` is the vector at which live and shadow were compared."""

    target: str
    resumed: bool = False
    records: int = 0
    offsets: dict[Place, int] = field(default_factory=dict)
    tables: list[Compared] = field(default_factory=list)
    #: Partitions whose highest ingested offset differs: (live, shadow).
    highs: dict[Place, tuple[int, int]] = field(default_factory=dict)
    #: Acks ahead of their fold that the log confirms, and rows it does not.
    acks_ahead: int = 0
    unfounded: list[Difference] = field(default_factory=list)
    swapped: bool = False
    old_schema: str | None = None

    @property
    def equal(self) -> bool:
        return not (self.highs or self.unfounded or any(table.differences for table in self.tables))


class Rebuild:
    """One run for one target. Use `run`."""

    def __init__(self, settings: Settings, target: str, clock: Clock, progress: Callable[[Progress], None]) -> None:
        self._settings = settings
        self._target = target
        self._clock = clock
        self._progress = progress
        self.report = Report(target)

    async def run(
        self, *, verify_only: bool = False, accept: bool = False, restart: bool = False, old_schema: str | None = None, actor: str = "cli"
    ) -> Report:
        """Raises `RebuildError`, `LogError`, `Fenced`, `confluent_kafka.KafkaException`, `psycopg.Error`; the live tables stay as they are.

        `old_schema`: where the tables that are replaced go; without it they go away. A shadow that differs stays, to be accepted.
        """
        kafka, batch, stall_s = self._settings.kafka, self._settings.rebuild.batch_records_max, self._settings.rebuild.stall_timeout_s
        client = topics.admin(kafka)
        fold_generation(topics.generation(client))
        async with AsyncExitStack() as stack:
            owner = await connect(self._settings.postgres, SHADOW_SCHEMA)
            stack.push_async_callback(owner.close)
            reader = stack.enter_context(closing(LogReader(kafka, batch_records_max=batch, stall_timeout_s=stall_s)))
            shadow = Shadow(owner, self._target)
            await shadow.open(self._places(shadow), restart=restart)
            self.report.resumed = shadow.resumed
            await self._catch_up(shadow, reader)
            await self._compare(shadow, reader)
            if verify_only:
                if self.report.equal:
                    await shadow.drop()
            elif self.report.equal or accept:
                await self._swap(shadow, reader, old_schema, actor)
        return self.report

    def _places(self, shadow: Shadow) -> set[Place]:
        return {(fold.topic, number) for fold in shadow.folds for number in range(self._settings.kafka.partitions)}

    # -- reading

    async def _catch_up(self, shadow: Shadow, reader: LogReader) -> None:
        """To where the live folds are, as near as one can come while they move."""
        if not shadow.loaded:
            ranges = await self._ranges(shadow, await self._live(shadow))
            self._check(ranges)
            await fill(self._settings, shadow, reader, ranges, self._loading(ranges))
        self._check(await self._ranges(shadow, await self._live(shadow)))
        await self._follow(shadow, reader)

    def _loading(self, ranges: Mapping[Place, Range]) -> Callable[[str, int], None]:
        """Tells the progress, topic by topic."""
        done: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for (topic, _), part in ranges.items():
            total[topic] += part.end - part.begin
        began_s: dict[str, float] = {}
        last_s = self._clock.monotonic_s()

        def counted(topic: str, records: int) -> None:
            nonlocal last_s
            done[topic] += records
            self.report.records += records
            began_s.setdefault(topic, last_s)
            last_s = self._clock.monotonic_s()
            self._progress(Progress(f"load {topic}", done[topic], total[topic], last_s - began_s[topic]))

        return counted

    async def _follow(self, shadow: Shadow, reader: LogReader) -> None:
        """Until no more is left than the swap may fold."""
        while True:
            ranges = await self._ranges(shadow, await self._live(shadow))
            await self._read(shadow, reader, ranges, "catch up")
            if _size(ranges) <= self._settings.rebuild.swap_records_max:
                return

    async def _live(self, shadow: Shadow) -> dict[Place, Standing]:
        return await standings(shadow.connection, FOLDS_SCHEMA, shadow.folds)

    async def _ranges(self, shadow: Shadow, live: Mapping[Place, Standing]) -> dict[Place, Range]:
        """From where the shadow is to where live is. Raises `RebuildError` if that is behind."""
        own = await shadow.standings()
        ranges = {}
        for place in sorted(own):
            begin, end = own[place].next_offset, live.get(place, _NOWHERE).next_offset
            if end < begin:
                raise RebuildError(
                    f"the live fold of {place[0]}[{place[1]}] went back from {begin} to {end}, as after a restore: run again with --restart"
                )
            ranges[place] = Range(begin, end)
        return ranges

    def _check(self, ranges: Mapping[Place, Range]) -> None:
        """Raises `RebuildError` where the log cannot give that."""
        wanted = {place: part for place, part in ranges.items() if part.begin < part.end}
        for place, kept in bounds(self._settings.kafka, wanted).items():
            name = f"{place[0]}[{place[1]}]"
            if kept.begin > wanted[place].begin:
                raise RebuildError(f"{name} begins at offset {kept.begin}: what was before is gone, so its tables cannot be folded again")
            if kept.end < wanted[place].end:
                raise RebuildError(f"{name} ends at {kept.end}, but its live fold stands at {wanted[place].end}: is this its broker?")

    async def _read(self, shadow: Shadow, reader: LogReader, ranges: Mapping[Place, Range], stage: str) -> None:
        total, done, began_s = _size(ranges), 0, self._clock.monotonic_s()
        async with aclosing(reader.read_ahead(ranges)) as batches:
            async for batch in batches:
                await shadow.fold(batch)
                done += sum(len(chunk.records) for chunk in batch)
                self._progress(Progress(stage, done, total, self._clock.monotonic_s() - began_s))
        self.report.records += done

    # -- comparing

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """The live tables as they are at its first statement, for as long as it lasts."""
        connection = await connect(self._settings.postgres, FOLDS_SCHEMA)
        try:
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    async def _compare(self, shadow: Shadow, reader: LogReader) -> None:
        report = self.report
        async with self._snapshot() as live:
            standing = await standings(live, FOLDS_SCHEMA, shadow.folds)
            await self._read(shadow, reader, await self._ranges(shadow, standing), "catch up")
            own = await shadow.standings()
            report.offsets = {place: own[place].next_offset for place in sorted(own)}
            report.highs = {
                place: (standing.get(place, _NOWHERE).ingested_high, mine.ingested_high)
                for place, mine in own.items()
                if standing.get(place, _NOWHERE).ingested_high != mine.ingested_high
            }
            for number, table in enumerate(shadow.tables):
                self._progress(Progress(f"compare {table.name}", number, len(shadow.tables), 0))
                report.tables.append(await compare(live, shadow.connection, table, self._settings.kafka.partitions))
            if acks.FOLD in shadow.folds:
                found = await find_ahead(live)
                kept = bounds(self._settings.kafka, ((acks.FOLD.topic, partition) for partition in found))
                ahead = look_up(found, ranges_of(found, standing, kept), reader)
                report.acks_ahead, report.unfounded = sum(map(len, ahead.rows.values())), ahead.unfounded
        reach("rebuild.compared")

    # -- putting it in place

    async def _swap(self, shadow: Shadow, reader: LogReader, old_schema: str | None, actor: str) -> None:
        swap = Swap(self._settings, shadow, reader, self._clock)
        await swap.run(self._ranges, lambda: self._follow(shadow, reader), old_schema=old_schema, actor=actor, detail=self._told())
        self.report.swapped, self.report.old_schema = True, old_schema

    def _told(self) -> dict[str, object]:
        """For the audit log."""
        report = self.report
        return {
            "equal": report.equal,
            "rows": {table.table: table.rows for table in report.tables},
            "differences": {table.table: table.differences for table in report.tables if table.differences},
        }


def _size(ranges: Mapping[Place, Range]) -> int:
    return sum(part.end - part.begin for part in ranges.values())
