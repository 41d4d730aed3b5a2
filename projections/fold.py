"""What a fold is.

A fold has two halves. `decode` is pure: records to typed rows, with what cannot be read set aside. `write` is one transaction: rows and
the partition's next offset together. Folding the same records again changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from psycopg import AsyncConnection

from schemas.codec import Codec, CodecError
from schemas.keys import record_key
from schemas.records import Parked, Record

T = TypeVar("T", bound=Struct)
Connection = AsyncConnection[Any]


@dataclass(frozen=True)
class Decoded:
    """A batch of one partition: records that could be read with their values, in order, and those that could not."""

    records: list[tuple[Record, Any]]
    parked: list[Parked]


@dataclass(frozen=True)
class Table:
    """A table of schema `folds`, as the rebuild has to know it. One that no fold declares is caught by `tests/contract/test_rebuild.py`.

    `key` identifies a row of an organization and mode; digests are taken in its order. `position` is the column that holds the offset of
    a row's record in `topic`. `once`: of rows that agree in these columns, those of the lowest position stay (what `write` does one batch
    after the other, as a load does it at the end); empty where `write` alone knows. `keep` names the statement that sees to it, `order`
    the columns that say which is lowest, where that is not `position` alone. Unless `once_is_unique`, no unique key of the table shows
    such rows. `at_offset` names the statement that reads the table as its folds wrote it, without what the API wrote ahead of them;
    `derive` the one that fills it from other tables after a load.
    """

    name: str
    topic: str
    position: str
    key: tuple[str, ...]
    once: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    once_is_unique: bool = True
    keep: str = "keep_first"
    at_offset: str | None = None
    derive: str | None = None


class Rows(NamedTuple):
    """Rows for a table, before anything is known about those already there."""

    table: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Fold:
    """One topic's fold. `write(connection, partition, decoded, old, new)` moves the next offset from `old` to `new`.

    `write` raises `projections.offsets.Fenced` when the partition does not stand at `old`; nothing is changed then.
    `rows(partition, decoded, ingested_high)` gives the same rows for a load into empty tables without indexes, and the highest ingested
    offset after them. Without it a rebuild folds this topic by `write` alone.
    """

    topic: str
    decode: Callable[[int, Sequence[Record]], Decoded]
    write: Callable[[Connection, int, Decoded, int, int], Awaitable[None]]
    tables: tuple[Table, ...]
    rows: Callable[[int, Decoded, int], tuple[list[Rows], int]] | None = None


def decoder(codec: Codec[T]) -> Callable[[int, Sequence[Record]], Decoded]:
    """The pure half for records of one type. A record under another organization's key is parked: it must never be shown to that one."""

    def decode(partition: int, records: Sequence[Record]) -> Decoded:
        read: list[tuple[Record, Any]] = []
        parked: list[Parked] = []
        for record in records:
            try:
                value = codec.decode(record.value)
                event: Any = getattr(value, "event", value)
                if record.key != record_key(event.organization):
                    raise CodecError("key_mismatch", "the record's key is not the organization in its value")
            except CodecError as error:
                parked.append(Parked(record, error))
            else:
                read.append((record, value))
        return Decoded(read, parked)

    return decode
