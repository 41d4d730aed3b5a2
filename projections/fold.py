"""What a fold is.

A fold has two halves. `decode` is pure: records to typed rows, with what cannot be read set aside. `write` is one transaction: rows and
the partition's next offset together. Folding the same records again changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
class Fold:
    """One topic's fold. `write(connection, partition, decoded, old, new)` moves the next offset from `old` to `new`.

    `write` raises `projections.offsets.Fenced` when the partition does not stand at `old`; nothing is changed then.
    """

    topic: str
    decode: Callable[[int, Sequence[Record]], Decoded]
    write: Callable[[Connection, int, Decoded, int, int], Awaitable[None]]


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
