"""Acks that the API wrote ahead of their fold: looked up in the log, so that a rebuild neither loses them nor takes their word for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from psycopg import sql

from projections import acks
from projections.digests import Difference
from projections.fold import Connection
from projections.log_reader import LogReader, Place, Range
from projections.offsets import generation
from projections.shadow import Standing
from runtime.postgres import FOLDS_SCHEMA
from runtime.sql import compose
from schemas.topics import INBOX_ACKS


class Ahead(NamedTuple):
    """What stands in the log as in the row, by partition, and rows that have no such record."""

    rows: dict[int, list[acks.Row]]
    unfounded: list[Difference]


async def find_ahead(connection: Connection) -> dict[int, list[acks.Row]]:
    """Rows of the live acks from the fold's offset on, by partition."""
    statement = compose("projections", "acks_ahead", schema=sql.Identifier(FOLDS_SCHEMA), generation=sql.Literal(generation()))
    found: dict[int, list[acks.Row]] = defaultdict(list)
    for partition, *row in await (await connection.execute(statement)).fetchall():
        found[partition].append(acks.Row(*row))
    return dict(found)


def ranges_of(found: Mapping[int, list[acks.Row]], standing: Mapping[Place, Standing], bounds: Mapping[Place, Range]) -> dict[Place, Range]:
    """What has to be read to look these rows up: from the fold's offset to the last of them, as far as the log goes."""
    ranges = {}
    for partition, rows in found.items():
        place = (INBOX_ACKS, partition)
        begin = standing[place].next_offset if place in standing else 0
        ranges[place] = Range(begin, min(rows[-1].position + 1, bounds[place].end))
    return ranges


def look_up(found: Mapping[int, list[acks.Row]], ranges: Mapping[Place, Range], reader: LogReader) -> Ahead:
    """Raises as `LogReader.read`."""
    logged: set[tuple[int, acks.Row]] = set()
    for batch in reader.read(ranges):
        for chunk in batch:
            partition = chunk.place[1]
            for record, ack in acks.FOLD.decode(partition, chunk.records).records:
                logged.update((partition, acks.Row(ack.organization, ack.mode, one, record.offset, record.timestamp_ms)) for one in ack.ids)
    good = {partition: [row for row in rows if (partition, row) in logged] for partition, rows in found.items()}
    unfounded = [
        Difference("acks", row.organization, row.mode, row.event_id, "unknown", INBOX_ACKS, partition, row.position)
        for partition, rows in found.items()
        for row in rows
        if (partition, row) not in logged
    ]
    return Ahead(good, unfounded)
