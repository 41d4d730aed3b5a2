"""What a receiver gets: the body, the same bytes on every attempt, and the headers that prove it: Standard Webhooks', or others'. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from access.times import rfc3339
from schemas.events import Ingested
from schemas.ids import EventId


def body(event: Ingested) -> bytes:
    """`{"id", "type", "timestamp", "data"}` with the payload slice as sent. `timestamp`: `occurred_at`, else when the API received it.

    Data that is no JSON comes as `data_base64` with its `datacontenttype` in the place of `data`.
    """
    timestamp = event.occurred_at or rfc3339(event.received_at_ms)
    head = {"id": event.id, "type": event.type, "timestamp": timestamp}
    if event.base64:
        return msgspec.json.encode({**head, "datacontenttype": event.content_type, "data_base64": event.payload})
    return msgspec.json.encode({**head, "data": event.payload})


def headers(event_id: EventId, at_s: int, content: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """`webhook-id`, `webhook-timestamp` (Unix seconds of this attempt), `webhook-signature` (one `v1,…` per secret, space-separated).

    HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks, "Signature scheme"). Raises `ValueError` without a secret.
    """
    if not secrets:
        raise ValueError("an endpoint needs a signing secret")
    signed = b"%b.%d.%b" % (event_id.encode(), at_s, content)
    signatures = (base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def legacy(scheme: str, at_s: int, content: bytes, secrets: Sequence[bytes]) -> str | None:
    """The value of a signature header in another sender's form, HMAC-SHA256 with the bytes of the secret; None for an unknown scheme.

    `secrets` are newest first. `t-v1-hex` has room for a signature of each. The other schemes have room for one, and it is the oldest
    secret's: the receiver gets the length of the overlap to learn the new one, and is never surprised by it.
    """
    oldest = secrets[-1]
    if scheme == "sha256-hex-body":
        return f"sha256={hmac.digest(oldest, content, hashlib.sha256).hex()}"
    if scheme == "base64-body":
        return base64.b64encode(hmac.digest(oldest, content, hashlib.sha256)).decode()
    if scheme == "t-v1-hex":
        signed = b"%d.%b" % (at_s, content)
        return ",".join([f"t={at_s}", *(f"v1={hmac.digest(secret, signed, hashlib.sha256).hex()}" for secret in secrets)])
    return None
