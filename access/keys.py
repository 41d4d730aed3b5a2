"""API keys: their form, how they are made, stored and found.

A key is `zap_live_` or `zap_test_` and random letters and digits, 64 characters in all. Only its SHA-256 is stored; it is found by its
first 12 characters, and every candidate is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, get_args

from psycopg import AsyncConnection

from runtime.sql import load
from schemas.events import Mode
from schemas.ids import ApiKeyId, OrganizationId

KEY_CHARS: Final = 64
PREFIX_CHARS: Final = 12
#: Bytes of randomness `generate` takes: more than 55 base-62 digits hold, so that the modulo's bias cannot be seen.
RANDOM_BYTES: Final = 64

Scope = Literal["events:write", "inbox:read", "inbox:ack", "endpoints:manage", "event_types:manage"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(r"\Azap_(live|test)_[0-9A-Za-z]{55}\Z")


class KeyRow(NamedTuple):
    """A stored key with what its organization may do. `hash` is the SHA-256 of the key; times are Unix milliseconds."""

    id: ApiKeyId
    organization: OrganizationId
    mode: Mode
    name: str
    hash: bytes
    scopes: tuple[str, ...]
    expires_at_ms: int | None
    revoked: bool
    plan: str
    rate_limit_per_minute: int | None
    suspended: bool = False
    encryption: bool = False


def generate(mode: Mode, random: bytes) -> str:
    """A new key from `RANDOM_BYTES` of randomness. Raises `ValueError` for fewer."""
    return drawn(f"zap_{mode}_", random)


def drawn(start: str, random: bytes) -> str:
    """`start` filled up with letters and digits to `KEY_CHARS`. Raises `ValueError` for less than `RANDOM_BYTES` of randomness."""
    if len(random) < RANDOM_BYTES:
        raise ValueError(f"random must hold {RANDOM_BYTES} bytes, got {len(random)}")
    number, digits = int.from_bytes(random, "big"), []
    for _ in range(KEY_CHARS - len(start)):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return start + "".join(digits)


def well_formed(text: str) -> bool:
    """Whether `text` can be a key at all; anything else is refused without a look-up."""
    return _FORM.match(text) is not None


def prefix(key: str) -> str:
    return key[:PREFIX_CHARS]


def digest(key: str) -> bytes:
    """SHA-256 of the whole key: 32 bytes. A key has over 300 bits of randomness, so no slow hash is needed."""
    return hashlib.sha256(key.encode()).digest()


def match(candidates: Iterable[KeyRow], hashed: bytes) -> KeyRow | None:
    """The candidate whose hash is `hashed`. All are compared, each in constant time, so timing tells nothing about any."""
    found = None
    for candidate in candidates:
        if hmac.compare_digest(candidate.hash, hashed):
            found = candidate
    return found


async def find(connection: AsyncConnection[Any], key_prefix: str) -> list[KeyRow]:
    """Every stored key, revoked and expired ones too, that starts with `key_prefix`."""
    cursor = await connection.execute(load("access", "find_keys"), {"prefix": key_prefix})
    return [KeyRow._make((*row[:5], tuple(row[5]), *row[6:])) for row in await cursor.fetchall()]


async def revocation_version(connection: AsyncConnection[Any]) -> int:
    """The version that everything raises which changes what a cached key may do."""
    row = await (await connection.execute(load("access", "revocation_version"))).fetchone()
    if row is None:
        raise RuntimeError("control.revocation is empty: run `triggers migrate`")
    return int(row[0])
