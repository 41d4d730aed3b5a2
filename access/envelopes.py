"""Envelopes: what an event says about somebody, under a data key that can be destroyed. Pure but for the randomness of nonces.

AES-256-GCM with nonces of 96 random bits (NIST SP 800-38D section 8.2.2), which is good for 2**32 events under one key (section 8.3). The
associated data binds a ciphertext to its organization, mode and event, so that none can be put in another's place.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schemas import codec
from schemas.events import ENCRYPTED, Attribute, Envelope, Ingested
from schemas.ids import DataKeyId

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
#: Between the parts of a sealed response; in no id and in no base64.
_DOT: Final = "."


class EnvelopeError(ValueError):
    """It does not open: altered, of another event, or no envelope at all. Never holds what is inside."""


class _Inside(msgspec.Struct, omit_defaults=True):
    subject: str | None = None
    cloudevent: dict[str, Attribute] | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


class Opened(NamedTuple):
    """What an envelope held. `payload`: the slice as sent."""

    subject: str | None
    cloudevent: dict[str, Attribute] | None
    payload: bytes


_inside: Final = msgspec.json.Decoder(_Inside)
_envelope: Final = msgspec.json.Decoder(Envelope)


class DataKey:
    """One data key in use: what encrypts and what fingerprints are two keys that follow from it (HKDF, RFC 5869)."""

    def __init__(self, key_id: DataKeyId, secret: bytes) -> None:
        self.id = key_id
        self._aead = AESGCM(_derived(secret, b"triggers envelope"))
        self._print_key = _derived(secret, b"triggers fingerprint")

    def fingerprint(self, plain: str) -> str:
        """Of an event whose fingerprint in clear (`schemas.keys.fingerprint`) is `plain`: nothing to guess by."""
        return hmac.digest(self._print_key, plain.encode(), hashlib.sha256).hex()

    def seal(self, event: Ingested) -> Ingested:
        """The event with payload, subject and CloudEvents attributes inside an envelope. Everything else stays in clear."""
        inside = codec.encode(_Inside(event.subject, event.cloudevent, event.payload))
        nonce, ciphertext = self._encrypt(inside, _bound(event))
        envelope = Envelope(self.id, base64.b64encode(nonce).decode(), base64.b64encode(ciphertext).decode())
        return msgspec.structs.replace(
            event, encoding=ENCRYPTED, subject=None, cloudevent=None, payload=msgspec.Raw(codec.encode(envelope))
        )

    def open(self, event: Ingested) -> Opened:
        """What is inside. Raises `EnvelopeError`."""
        envelope = envelope_of(bytes(event.payload))
        try:
            nonce, ciphertext = (base64.b64decode(text, validate=True) for text in (envelope.nonce, envelope.ciphertext))
            found = _inside.decode(self._aead.decrypt(nonce, ciphertext, _bound(event)))
        except (InvalidTag, ValueError):
            raise EnvelopeError(f"the envelope of {event.id} does not open with {self.id}: it was altered, or is another event's") from None
        return Opened(found.subject, found.cloudevent, bytes(found.payload))

    def plain(self, event: Ingested) -> Ingested:
        """The event as it was before `seal`, but for its fingerprint. Raises `EnvelopeError`."""
        opened = self.open(event)
        return msgspec.structs.replace(
            event, encoding="plain", subject=opened.subject, cloudevent=opened.cloudevent, payload=msgspec.Raw(opened.payload)
        )

    def seal_response(self, body: bytes, event: Ingested, attempt: str) -> str:
        """The beginning of an answer to the webhook of an event. `attempt` names which."""
        nonce, ciphertext = self._encrypt(body, _bound(event) + attempt.encode())
        return _DOT.join((ENCRYPTED, self.id, base64.b64encode(nonce + ciphertext).decode()))

    def open_response(self, sealed: str, event: Ingested, attempt: str) -> bytes:
        """Raises `EnvelopeError`."""
        try:
            data = base64.b64decode(sealed.split(_DOT)[2], validate=True)
            return self._aead.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound(event) + attempt.encode())
        except (InvalidTag, ValueError, IndexError):
            raise EnvelopeError(f"an answer to {event.id} does not open with {self.id}") from None

    def _encrypt(self, plain: bytes, bound: bytes) -> tuple[bytes, bytes]:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce, self._aead.encrypt(nonce, plain, bound)


def envelope_of(payload: bytes) -> Envelope:
    """Raises `EnvelopeError`."""
    try:
        return _envelope.decode(payload)
    except msgspec.DecodeError as error:
        raise EnvelopeError(f"this is no envelope: {error}") from None


def key_id(payload: bytes) -> DataKeyId | None:
    """The data key of an envelope; None of what is none."""
    try:
        return envelope_of(payload).key
    except EnvelopeError:
        return None


def response_key(response: str | None) -> DataKeyId | None:
    """The data key of a sealed answer; None for one in clear, whose base64 has no dot."""
    return DataKeyId(response.split(_DOT)[1]) if response is not None and response.startswith(ENCRYPTED + _DOT) else None


def attempt_name(endpoint_id: str, round_id: str, attempt: int) -> str:
    """Which attempt at an event a sealed answer is of."""
    return f"{endpoint_id}\n{round_id}\n{attempt}"


def subject_digest(index_secret: bytes, subject: str | None) -> bytes:
    """By which an organization's data keys are found. Those of no subject have one of their own, which no subject can have."""
    return hmac.digest(index_secret, b"-" if subject is None else b"s" + subject.encode(), hashlib.sha256)


def _bound(event: Ingested) -> bytes:
    return f"{event.organization}\n{event.mode}\n{event.id}\n".encode()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)
