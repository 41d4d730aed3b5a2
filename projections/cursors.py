"""Inbox cursors: opaque, and good only for the organization, mode and filter they were given for. Pure.

A cursor is a position in the log (generation, partition, offset) with a keyed checksum, so that it cannot be made up or altered; what it
is bound to goes into the checksum, not into the text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final, NamedTuple

from schemas.problems import INVALID_CURSOR, ProblemError

_FORM: Final = struct.Struct(">BIIq")
_VERSION: Final = 1
_CHECK_BYTES: Final = 12
_TEXT_CHARS_MAX: Final = 128


class Position(NamedTuple):
    """After the event at `offset` of `events.accepted`. -1: before the first."""

    generation: int
    partition: int
    offset: int


def encode(position: Position, key: bytes, *bound: str) -> str:
    """`bound` is what the cursor is only good with: organization, mode, filter."""
    body = _FORM.pack(_VERSION, *position)
    return encode_raw(body + _check(body, key, bound))


def decode(text: str, key: bytes, *bound: str) -> Position:
    """Raises the problem `invalid-cursor`, the same for every way in which a cursor can be wrong."""
    try:
        if len(text) > _TEXT_CHARS_MAX:
            raise ValueError
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        body, check = raw[: _FORM.size], raw[_FORM.size :]
        if not hmac.compare_digest(check, _check(body, key, bound)) or encode_raw(raw) != text:
            raise ValueError
        version, *position = _FORM.unpack(body)
        if version != _VERSION:
            raise ValueError
    except (ValueError, binascii.Error, struct.error):
        raise ProblemError(
            INVALID_CURSOR,
            "Use a `next_cursor` of this inbox with the same key's organization, mode, status and type, or none to start over.",
        ) from None
    return Position(*position)


def encode_raw(raw: bytes) -> str:
    """The one spelling of these bytes: base64 would take others for the same."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _check(body: bytes, key: bytes, bound: tuple[str, ...]) -> bytes:
    digest = hashlib.blake2b(body, key=key, digest_size=_CHECK_BYTES, person=b"triggers-cursor")
    for part in bound:
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.digest()
