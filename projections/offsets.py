"""Where each fold stands in Postgres, and the transaction in which it moves.

The fence: a partition's next offset only moves from where the batch began. A worker that lost its partition, or tries a transaction again
whose commit did happen, is refused and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from projections.fold import Connection
from runtime.crashpoints import reach
from runtime.sql import load
from schemas.topics import FIRST_GENERATION

#: First half of the advisory lock's key; the second is the partition.
LOCK_CLASS: Final = 0x666F6C64  # "fold"


_generation = FIRST_GENERATION


def fold_generation(number: int) -> None:
    """Topics of which generation are folded in this process: said once, when it begins, by whoever looked at the topics."""
    global _generation  # noqa: PLW0603
    _generation = number


def generation() -> int:
    """Of the topics that are folded here."""
    return _generation


class OtherGeneration(RuntimeError):
    """The tables were folded from topics of another generation."""


class Fenced(RuntimeError):
    """The partition does not stand where the batch begins."""


@dataclass
class Position:
    """State of one partition inside a transaction. Set `ingested_high` to move it with the offset."""

    ingested_high: int


async def lock_partition(connection: Connection, partition: int) -> None:
    """Until the transaction ends: nobody else writes rows of this partition that are derived from two topics."""
    await connection.execute(load("projections", "lock_partition"), (LOCK_CLASS, partition))


@asynccontextmanager
async def moving(connection: Connection, topic: str, partition: int, old: int, new: int) -> AsyncIterator[Position]:
    """One transaction that moves `topic[partition]` from `old` to `new`, whatever is written inside. Raises `Fenced`.

    It need not wait for the disk: rows and offset are lost together and folded again.
    """
    async with connection.transaction():
        await connection.execute(load("projections", "no_fsync_wait"))
        await lock_partition(connection, partition)
        cursor = await connection.execute(load("projections", "read_position"), (topic, partition, _generation))
        row = await cursor.fetchone()
        if row is None or row[0] != old:
            raise Fenced(f"{topic}[{partition}] stands at {row and row[0]}, the batch begins at {old}")
        position = Position(row[1])
        yield position
        reach("project.in_transaction")
        moved = await connection.execute(
            load("projections", "move_position"),
            {"topic": topic, "partition": partition, "generation": _generation, "old": old, "new": new, "high": position.ingested_high},
        )
        if moved.rowcount != 1:
            raise Fenced(f"{topic}[{partition}] moved away from {old} while its batch was written")
    reach("project.after_commit")


async def load_offsets(connection: Connection, partitions: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Next offsets by (topic, partition); a partition never seen starts at 0. Raises `OtherGeneration` before anything is written."""
    other = await (await connection.execute(load("projections", "other_generation"), (_generation,))).fetchone()
    if other is not None:
        raise OtherGeneration(
            f"the tables were folded from topics of generation {other[0]}, and these are of generation {_generation}: is the database that "
            "of another system, or from a dump that was made before partitions were grown?"
        )
    found: dict[tuple[str, int], int] = {}
    for topic, partition in sorted(partitions):
        await connection.execute(load("projections", "begin_position"), (topic, partition, _generation))
        cursor = await connection.execute(load("projections", "read_position"), (topic, partition, _generation))
        row = await cursor.fetchone()
        found[topic, partition] = row[0] if row is not None else 0
    return found
