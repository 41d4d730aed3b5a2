"""The files of a backup: gzip, under a name of their own only when they are whole, with their digest.

Records are JSON, one array a line: offset, timestamp (ms), key, value, headers. Bytes that are UTF-8 stand as text, others as
`{"base64": …}`, null is null. Memory does not grow with a file.
"""

from __future__ import annotations

import base64
import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
from msgspec import Struct

from schemas.records import Record
from triggers.backup.manifest import Damaged, File

#: Fast; a log of JSON shrinks to a quarter or less all the same.
_LEVEL: Final = 3
_BLOCK_BYTES: Final = 1 << 20
PART: Final = ".part"

Shown = str | dict[str, str] | None


class Line(Struct, frozen=True, array_like=True):
    """A record of a topic."""

    offset: int
    timestamp_ms: int
    key: Shown
    value: Shown
    headers: list[tuple[str, Shown]]


_decode: Final = msgspec.json.Decoder(Line).decode


def line(record: Record) -> bytes:
    shown = Line(
        record.offset,
        record.timestamp_ms,
        _shown(record.key),
        _shown(record.value),
        [(name, _shown(value)) for name, value in record.headers],
    )
    return msgspec.json.encode(shown) + b"\n"


def _shown(content: bytes | None) -> Shown:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _content(shown: Shown) -> bytes | None:
    if isinstance(shown, dict):
        return base64.b64decode(shown["base64"], validate=True)
    return None if shown is None else shown.encode()


class Writer:
    """A file that is being written, under a name that says it is not whole. Leave `writing` without an error to make it whole."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = sha256()
        self._size = 0
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast(BinaryIO, self), mtime=0)
        #: Bytes put in, before compression.
        self.taken = 0

    def put(self, content: bytes | memoryview) -> None:
        self.taken += len(content)
        self._gzip.write(content)

    def write(self, content: bytes) -> int:
        """What gzip calls."""
        self._digest.update(content)
        self._size += len(content)
        return self._raw.write(content)

    def flush(self) -> None:
        self._raw.flush()

    def end(self) -> tuple[int, str]:
        """(size, digest) of a file that is on the disk."""
        self._gzip.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        return self._size, self._digest.hexdigest()


class Made:
    """What `writing` found out, once it is left."""

    size: int
    digest: str


@contextmanager
def writing(directory: Path, name: str) -> Iterator[tuple[Writer, Made]]:
    """Raises `OSError`. Whatever ends it early leaves no file of that name."""
    path, made = directory / name, Made()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    with part.open("wb") as raw:
        writer = Writer(raw)
        yield writer, made
        made.size, made.digest = writer.end()
    part.replace(path)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """In the place of what was there, at once."""
    part = path.with_name(path.name + PART)
    with part.open("wb") as raw:
        raw.write(content)
        raw.flush()
        os.fsync(raw.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """So that the name of a file survives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_bytes(directory: Path, file: File) -> None:
    """Raises `Damaged` unless the file is there with exactly its bytes."""
    digest, size = sha256(), 0
    try:
        with (directory / file.name).open("rb") as raw:
            while block := raw.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        raise Damaged(f"{file.name} is missing") from None
    if size != file.size:
        raise Damaged(f"{file.name} has {size} bytes, it had {file.size}")
    if digest.hexdigest() != file.digest:
        raise Damaged(f"{file.name} was changed after it was written")


def records(directory: Path, file: File) -> Iterator[Record]:
    """Raises `Damaged`."""
    try:
        with gzip.open(directory / file.name, "rb") as lines:
            for raw in lines:
                one = _decode(raw)
                headers = [(name, _content(value)) for name, value in one.headers]
                yield Record(one.offset, one.timestamp_ms, _content(one.key), _content(one.value), headers)
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, ValueError, KeyError) as error:
        raise Damaged(f"{file.name} cannot be read ({error})") from None


def blocks(directory: Path, file: File) -> Iterator[bytes]:
    """The content of a file, inflated. Raises `Damaged`."""
    try:
        with gzip.open(directory / file.name, "rb") as content:
            while block := content.read(_BLOCK_BYTES):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"{file.name} cannot be read ({error})") from None
