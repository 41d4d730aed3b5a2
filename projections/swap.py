"""The swap: one transaction in which the shadow's tables take the place of the live ones.

It holds the locks that live folds and acks of the API take, so the live offsets stand still; folds what the shadow lacks; carries over
the acks that are ahead; then locks the tables, which readers hold only while a statement runs, and exchanges them. Readers and folds that
waited find the new tables under the old names. The live offsets stay where they are: the shadow stands at the same ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from projections import acks
from projections.ahead import find_ahead, look_up, ranges_of
from projections.log_reader import LogReader, Place, Range, bounds
from projections.offsets import LOCK_CLASS
from projections.sessions import RebuildError
from projections.shadow import Shadow, Standing, standings
from projections.shadow_tables import SHADOW_SCHEMA, put_in_place
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.postgres import FOLDS_SCHEMA
from runtime.settings import Settings
from runtime.sql import compose, load

_PAUSE_S: Final = 0.2
_ALLOWED_MAX: Final = 16

Ranges = Callable[[Shadow, Mapping[Place, Standing]], Awaitable[Mapping[Place, Range]]]


class Behind(Exception):
    """More is left to fold than the live folds may be made to wait for."""


class Swap:
    """Tries until it is done or its time is up. Nothing changes before the one commit.

    While live folds stand still for the exchange they are caught up with for certain; before, only where that is faster than they are. So
    what they may be made to wait for grows as the time runs out: `swap_records_max` in its first half, twice that in the quarter after,
    and so on, to `_ALLOWED_MAX` times as much.
    """

    def __init__(self, settings: Settings, shadow: Shadow, reader: LogReader, clock: Clock) -> None:
        self._settings = settings
        self._shadow = shadow
        self._reader = reader
        self._clock = clock
        self._allowed = settings.rebuild.swap_records_max

    async def run(
        self, ranges: Ranges, catch_up: Callable[[], Awaitable[None]], *, old_schema: str | None, actor: str, detail: Mapping[str, object]
    ) -> None:
        """Raises `RebuildError` when it could not be done within `swap_timeout_s`."""
        timeout_s = self._settings.rebuild.swap_timeout_s
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            self._allowed = allowed(self._settings.rebuild.swap_records_max, deadline_s - self._clock.monotonic_s(), timeout_s)
            try:
                async with self._shadow.connection.transaction():
                    await self._exchange(ranges, old_schema, actor, detail)
                reach("rebuild.after_swap")
                return
            except (Behind, psycopg.errors.LockNotAvailable) as error:
                if self._clock.monotonic_s() > deadline_s:
                    raise RebuildError(
                        f"the tables could not be exchanged within {timeout_s:g} s ({error}): run it again; "
                        "a long transaction of a reader shows in pg_stat_activity"
                    ) from None
                if not isinstance(error, Behind):
                    await asyncio.sleep(_PAUSE_S)
            await catch_up()

    async def _exchange(self, ranges: Ranges, old_schema: str | None, actor: str, detail: Mapping[str, object]) -> None:
        shadow, connection = self._shadow, self._shadow.connection
        await connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(int(self._settings.rebuild.lock_timeout_s * 1000)))
        values = {"lock": LOCK_CLASS, "partitions": self._settings.kafka.partitions}
        await connection.execute(load("projections", "lock_live_partitions"), values)
        await self._fold_the_rest(await ranges(shadow, await standings(connection, FOLDS_SCHEMA, shadow.folds)))
        if acks.FOLD in shadow.folds:
            await self._carry_acks()
        if not await shadow.unchanged_live():
            raise RebuildError("the live tables were altered meanwhile, as by a migration: run again with --restart")
        names = sql.SQL(", ").join(sql.Identifier(FOLDS_SCHEMA, name) for name in shadow.names)
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
        reach("rebuild.locked")
        await connection.execute(
            compose("projections", "reset_high", live=sql.Identifier(FOLDS_SCHEMA), shadow=sql.Identifier(SHADOW_SCHEMA))
        )
        await put_in_place(connection, shadow.names, old_schema)
        await shadow.drop()
        audited: dict[str, Any] = {"actor": actor, "action": "projections.swapped", "organization": None, "target": shadow.target}
        await connection.execute(load("access", "insert_audit"), {**audited, "detail": Jsonb({**detail, "kept_as": old_schema})})
        await connection.execute("SET LOCAL synchronous_commit = on")  # the folds in this transaction turned it off
        reach("rebuild.in_swap")

    async def _fold_the_rest(self, ranges: Mapping[Place, Range]) -> None:
        self._bounded(ranges)
        for batch in self._reader.read(ranges):
            await self._shadow.fold(batch)

    async def _carry_acks(self) -> None:
        """From the log, where the API's rows say they are: those the live fold has not come to."""
        connection = self._shadow.connection
        found = await find_ahead(connection)
        if not found:
            return
        kept = bounds(self._settings.kafka, ((acks.FOLD.topic, partition) for partition in found))
        ranges = ranges_of(found, await self._shadow.standings(), kept)
        self._bounded(ranges)
        for partition, rows in look_up(found, ranges, self._reader).rows.items():
            await acks.apply(connection, partition, rows)

    def _bounded(self, ranges: Mapping[Place, Range]) -> None:
        left = sum(part.end - part.begin for part in ranges.values())
        if left > self._allowed:
            raise Behind(f"{left} records are still to be folded: is `triggers process project` running, and does it keep up?")


def allowed(records_max: int, left_s: float, timeout_s: float) -> int:
    """Records the live folds may be made to wait for when so much of the time is left."""
    times, share = 1, 0.5
    while times < _ALLOWED_MAX and left_s <= share * timeout_s:
        times, share = 2 * times, share / 2
    return times * records_max
