"""The manifest of a backup: what belongs to it, byte for byte. It is written last, so where it stands the backup is whole. Pure.

`docs/operating/backup.md` describes the files in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from projections.log_reader import Place, Range

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
#: A path below the backup's folder, never out of it.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=512)]


class Damaged(ValueError):
    """A backup is not what was written. The text names the file."""


class File(Struct, frozen=True, kw_only=True):
    """`size` in bytes and `digest` (SHA-256) are of the compressed file."""

    name: Name
    size: Count
    digest: Digest


class Segment(File, frozen=True, kw_only=True):
    """Records of one partition: all that it had from offset `first` to `next` (exclusive)."""

    topic: str
    topic_id: str
    partition: Count
    first: Count
    next: Count
    records: Count


class Table(File, frozen=True, kw_only=True):
    """Rows of one table of the control plane, as PostgreSQL's `COPY … TO STDOUT` gives these columns."""

    table: str
    columns: list[str]
    rows: Count


class TopicAbout(Struct, frozen=True, kw_only=True):
    """A topic as it was configured. `compacted`: offsets may be missing, and nobody refers to one."""

    name: str
    topic_id: str
    compacted: bool
    timestamp: str
    config: dict[str, str]


class Covered(Struct, frozen=True, kw_only=True):
    """Offsets of a partition that the backup covers, `end` exclusive."""

    topic: str
    partition: Count
    begin: Count
    end: Count


class Committed(Struct, frozen=True, kw_only=True):
    """Where a consumer group stood."""

    group: str
    topic: str
    partition: Count
    offset: Count
    metadata: str


class Manifest(Struct, frozen=True, kw_only=True):
    """`run` counts the backups made into this folder. `master_keys`: ids of the keys that the secrets are encrypted under; `oldest_key`:
    a fingerprint of the oldest key of the setting, which checksums of cursors are derived from (None: no key was set)."""

    format: int
    run: int
    made_at_ms: int
    version: str
    cluster: str
    generation: int
    partitions: int
    delays_s: list[float]
    revision: str
    master_keys: list[str]
    oldest_key: str | None
    topics: list[TopicAbout]
    covered: list[Covered]
    segments: list[Segment]
    committed: list[Committed]
    tables: list[Table]

    def files(self) -> Iterator[File]:
        yield from self.tables
        yield from self.segments

    def ranges(self) -> dict[Place, Range]:
        return {(one.topic, one.partition): Range(one.begin, one.end) for one in self.covered}

    def segments_of(self, place: Place) -> list[Segment]:
        """In the order of their offsets."""
        return sorted((one for one in self.segments if (one.topic, one.partition) == place), key=lambda one: one.first)


class _Sealed(Struct, frozen=True):
    digest: Digest
    manifest: Raw


def encode(manifest: Manifest) -> tuple[str, bytes]:
    """(digest, the file): the manifest under a SHA-256 of its own bytes. The digest names the whole backup."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    digest = sha256(body).hexdigest()
    return digest, msgspec.json.encode(_Sealed(digest, Raw(body))) + b"\n"


def decode(content: bytes) -> tuple[str, Manifest]:
    """Raises `Damaged`."""
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{MANIFEST} cannot be read ({error})") from None
    if sha256(bytes(sealed.manifest)).hexdigest() != sealed.digest:
        raise Damaged(f"{MANIFEST} was changed after it was written")
    try:
        manifest = msgspec.json.decode(sealed.manifest, type=Manifest)
    except msgspec.DecodeError as error:
        raise Damaged(f"{MANIFEST} is of another format ({error})") from None
    if manifest.format != FORMAT:
        raise Damaged(f"format {manifest.format} is not known here (known: {FORMAT}): use the version that made it, {manifest.version}")
    return sealed.digest, manifest
