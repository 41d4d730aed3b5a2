"""Secrets at rest: AES-256-GCM under a master key that can be rotated, with the owner bound in as associated data.

The setting lists master keys newest first. The first encrypts, all decrypt, so rotation is: put a new one in front, rewrap, drop the old.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # NIST SP 800-38D section 8.2.2: 96 random bits
_KEY_ID: Final = re.compile(r"\A[A-Za-z0-9_-]{1,32}\Z")
_HOW: Final = "TRIGGERS_MASTER_KEYS lists `<id>:<base64 of 32 random bytes>`, newest first, separated by commas"


class KeyringError(ValueError):
    """The master keys cannot be used, or a secret cannot be opened with them. Never holds key material."""


class Keyring:
    """The master keys of a deployment."""

    def __init__(self, keys: Mapping[str, bytes], newest: str) -> None:
        self._keys = dict(keys)
        self.newest = newest

    @classmethod
    def from_setting(cls, text: str) -> Keyring:
        """Raises `KeyringError` saying what is wrong, never what was given."""
        keys: dict[str, bytes] = {}
        newest = ""
        for place, part in enumerate((p for p in text.split(",") if p.strip()), 1):
            key_id, _, encoded = part.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not _KEY_ID.match(key_id) or len(key) != _KEY_BYTES:
                raise KeyringError(f"master key number {place} is malformed: {_HOW}")
            if key_id in keys:
                raise KeyringError(f"master key id {key_id} is there twice: {_HOW}")
            keys[key_id] = key
            newest = newest or key_id
        if not keys:
            raise KeyringError(f"there is no master key: {_HOW}")
        return cls(keys, newest)

    def encrypt(self, plain: bytes, associated: bytes) -> tuple[str, bytes]:
        """(master key id, nonce + ciphertext + tag) under the newest key."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.newest, nonce + AESGCM(self._keys[self.newest]).encrypt(nonce, plain, associated)

    def decrypt(self, key_id: str, sealed: bytes, associated: bytes) -> bytes:
        """Raises `KeyringError` if the master key is not in the setting or the secret was not sealed for `associated`."""
        key = self._keys.get(key_id)
        if key is None:
            raise KeyringError(f"master key {key_id} is needed and not in TRIGGERS_MASTER_KEYS: put it back (behind the newest) and rewrap")
        try:
            return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
        except (InvalidTag, ValueError):
            raise KeyringError(f"a secret does not open with master key {key_id}: it was altered, or belongs to another owner") from None

    def weak(self, different_bytes_min: int) -> list[str]:
        """Ids of master keys with so few different bytes that nobody drew them at random."""
        return [key_id for key_id, key in self._keys.items() if len(set(key)) < different_bytes_min]

    def require(self, key_ids: Iterable[str]) -> None:
        """Raises `KeyringError` naming the keys that are not in the setting."""
        if missing := sorted(set(key_ids) - self._keys.keys()):
            raise KeyringError(f"secrets are encrypted under master keys that are not in TRIGGERS_MASTER_KEYS: {', '.join(missing)}")

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes for `purpose` from the OLDEST master key, so that adding a newer one changes nothing (HKDF, RFC 5869)."""
        oldest = self._keys[list(self._keys)[-1]]
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=purpose).derive(oldest)
