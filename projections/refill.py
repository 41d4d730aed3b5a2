"""The first fold of a log into empty tables, by the engine of a rebuild: what a restore does, and nobody else.

The live offsets are set to the ends first, so that the shadow is folded to there; nobody may read them in between (see
`triggers.backup.target`). Not the live project worker from offset 0: it would park every unreadable record of the log once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from projections.fold import Connection
from projections.folds import FOLDS
from projections.log_reader import LogReader, Place
from projections.offsets import fold_generation, generation, load_offsets
from projections.rebuild import Progress, Rebuild, Report
from projections.sessions import connect
from projections.shadow import Shadow
from runtime import topics
from runtime.clock import Clock
from runtime.postgres import FOLDS_SCHEMA
from runtime.settings import Settings
from runtime.sql import load


class _Refill(Rebuild):
    """There is nothing to compare with."""

    async def _compare(self, shadow: Shadow, reader: LogReader) -> None:
        self.report.offsets = {place: one.next_offset for place, one in sorted((await shadow.standings()).items())}


async def refill(
    settings: Settings, ends: Mapping[Place, int], clock: Clock, progress: Callable[[Progress], None], *, actor: str
) -> Report:
    """Fold every topic up to its end and put the tables in place. Begun before, it goes on.

    Raises `projections.sessions.RebuildError`, `LogError`, `confluent_kafka.KafkaException`, `psycopg.Error`.
    """
    client = topics.admin(settings.kafka)
    fold_generation(topics.generation(client))
    connection = await connect(settings.postgres, FOLDS_SCHEMA)
    try:
        await _stand_at(connection, {place: end for place, end in ends.items() if place[0] in {fold.topic for fold in FOLDS}})
    finally:
        await connection.close()
    return await _Refill(settings, "all", clock, progress).run(accept=True, actor=actor)


async def _stand_at(connection: Connection, ends: Mapping[Place, int]) -> None:
    async with connection.transaction():
        for (topic, partition), offset in (await load_offsets(connection, set(ends))).items():
            if offset == 0:
                values = {
                    "topic": topic,
                    "partition": partition,
                    "generation": generation(),
                    "old": 0,
                    "new": ends[topic, partition],
                    "high": -1,
                }
                await connection.execute(load("projections", "move_position"), values)
