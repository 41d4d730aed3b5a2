"""The lines of an audit export: JSON, one line each. `export` first, then records, with a checkpoint every so often and at the end."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct, json

from schemas.events import Milliseconds, Offset, OrganizationIdField
from schemas.records import Record

Link = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Count = Annotated[int, Meta(ge=0)]


class Export(Struct, frozen=True, kw_only=True, tag_field="kind", tag="export"):
    """The first line: what the file is about. `first_offset`: the oldest record the partition still had."""

    format: int
    organization: OrganizationIdField
    topic: str
    partition: Count
    generation: int
    first_offset: Offset


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="record"):
    """One record of the topic. Its key is the organization. `chain` is the link that ends with it.

    Texts are UTF-8; what is none stands in `value_base64`, or among the headers as `{"base64": …}`. A header or a value that is null in the
    log is null here, and `value` is left out where `value_base64` stands.
    """

    offset: Offset
    timestamp_ms: Milliseconds
    headers: list[tuple[str, str | dict[str, str] | None]]
    value: str | None = None
    value_base64: str | None = None
    chain: Link

    def content(self) -> bytes | None:
        """The value's bytes. Raises `ValueError`."""
        return base64.b64decode(self.value_base64, validate=True) if self.value_base64 is not None else _bytes(self.value)

    def headers_as_found(self) -> list[tuple[str, bytes | None]]:
        """Raises `ValueError`."""
        return [(name, _bytes(value)) for name, value in self.headers]


class Checkpoint(Struct, frozen=True, kw_only=True, tag_field="kind", tag="checkpoint"):
    """The partition was read up to `next_offset`; so far there are `records`, and `chain` is the last link."""

    next_offset: Offset
    records: Count
    chain: Link


Line = Export | Entry | Checkpoint
#: Raises `msgspec.DecodeError`.
decode: Final = json.Decoder(Line).decode


def encode(line: Line) -> bytes:
    return json.encode(line) + b"\n"


def entry(record: Record, link: bytes) -> Entry:
    value, value_base64 = _text(record.value)
    return Entry(
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        headers=_headers(record.headers),
        value=value,
        value_base64=value_base64,
        chain=link.hex(),
    )


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | dict[str, str] | None]]:
    shown: list[tuple[str, str | dict[str, str] | None]] = []
    for name, content in headers:
        text, encoded = _text(content)
        shown.append((name, text if encoded is None else {"base64": encoded}))
    return shown


def _text(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def _bytes(shown: str | dict[str, str] | None) -> bytes | None:
    if isinstance(shown, dict):
        return base64.b64decode(shown["base64"], validate=True)
    return None if shown is None else shown.encode()
