"""The signing secrets of endpoints: made or given, shown once, sealed at rest, rotated with an overlap in which old and new both sign."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit, data_keys
from access.organizations import NotPossible
from access.secrets import Keyring
from access.times import iso
from runtime.sql import load
from schemas.ids import EndpointId

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every signing secret starts with
#: Bytes of a signing secret of ours, and of one that is brought along (Standard Webhooks, "Signature scheme": 24 to 64).
SECRET_BYTES: Final = 24
_SECRET_BYTES_MAX: Final = 64
#: Secrets that sign at once: each is a signature in the header.
SECRETS_MAX: Final = 5


class Secret(NamedTuple):
    """What may be told of a secret. Times are Unix milliseconds; the newest does not expire."""

    number: int
    created_at_ms: int
    expires_at_ms: int | None

    def shown(self) -> dict[str, Any]:
        return {"number": self.number, "created_at": iso(self.created_at_ms), "expires_at": iso(self.expires_at_ms)}


def secret_text(secret: bytes) -> str:
    """`whsec_` + base64, as Standard Webhooks libraries take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def parse_secret(text: str) -> bytes:
    """The bytes of a secret that is brought along from another sender. Raises `ValueError`, which does not repeat it."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if secret_text(secret) != text or not SECRET_BYTES <= len(secret) <= _SECRET_BYTES_MAX:
        raise ValueError(f"a secret is {SECRET_PREFIX} and the base64 of {SECRET_BYTES} to {_SECRET_BYTES_MAX} bytes")
    return secret


def valid_now(connection: Connection[Any], endpoint: str) -> list[Secret]:
    """Those that sign, newest first."""
    return [Secret._make(row) for row in connection.execute(load("access", "list_endpoint_secrets"), {"endpoint": endpoint})]


def insert(connection: Connection[Any], keyring: Keyring, endpoint: EndpointId, number: int, secret: bytes) -> None:
    """Within the caller's transaction."""
    master_key_id, sealed = keyring.encrypt(secret, endpoint.encode())
    values = {"endpoint": endpoint, "id": number, "ciphertext": sealed, "master_key_id": master_key_id}
    connection.execute(load("access", "insert_endpoint_secret"), values)


def replace(connection: Connection[Any], keyring: Keyring, endpoint: EndpointId, secret: bytes, *, overlap_s: int) -> int:
    """A new secret; older ones end after the overlap, or when they would have ended before it. Returns its number.

    Within the caller's transaction, which holds the endpoint. Raises `NotPossible` while too many older ones go on signing.
    """
    number = 1 + max((one.number for one in valid_now(connection, endpoint)), default=0)
    connection.execute(load("access", "expire_endpoint_secrets"), {"endpoint": endpoint, "overlap_s": overlap_s})
    connection.execute(load("access", "delete_endpoint_secrets"), {"endpoint": endpoint, "all": False})
    if len(valid_now(connection, endpoint)) >= SECRETS_MAX:
        raise NotPossible(f"{SECRETS_MAX} secrets sign already: wait until one has ended, or rotate with overlap_s 0, which ends them all")
    insert(connection, keyring, endpoint, number, secret)
    return number


def forget(connection: Connection[Any], endpoint: str) -> None:
    """Nothing will be signed for this endpoint any more."""
    connection.execute(load("access", "delete_endpoint_secrets"), {"endpoint": endpoint, "all": True})


def rewrap(connection: Connection[Any], keyring: Keyring, *, actor: str) -> int:
    """Encrypt every secret and data key that is not under the newest master key again; returns how many. Raises `KeyringError`."""
    changed = 0
    with connection.transaction():
        rows = connection.execute(load("access", "secrets_under_other_keys"), {"newest": keyring.newest}).fetchall()
        for endpoint, number, sealed, master_key_id in rows:
            plain = keyring.decrypt(master_key_id, bytes(sealed), endpoint.encode())
            new_id, resealed = keyring.encrypt(plain, endpoint.encode())
            connection.execute(
                load("access", "reseal_secret"), {"endpoint": endpoint, "id": number, "ciphertext": resealed, "master_key_id": new_id}
            )
            changed += 1
        changed += data_keys.rewrap(connection, keyring)
        if changed:
            audit.record(
                connection, actor=actor, action="secrets.rewrapped", organization=None, target=keyring.newest, detail={"count": changed}
            )
    return changed
