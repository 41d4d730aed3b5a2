"""Webhook endpoints as registered: URL, event types, signing secrets. Delivering to them is `delivery`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection
from yarl import URL

from access import audit
from access.organizations import require
from access.secrets import Keyring
from runtime.sql import load
from schemas.events import Mode
from schemas.ids import EndpointId

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every signing secret starts with
#: Bytes of a signing secret (Standard Webhooks: 24 to 64).
SECRET_BYTES: Final = 24
_URL_CHARS_MAX: Final = 2_048


class Endpoint(NamedTuple):
    id: EndpointId
    organization: str
    mode: Mode
    url: str
    description: str
    event_types: tuple[str, ...] | None
    enabled: bool
    disabled_reason: str | None


def check_url(text: str, *, allow_insecure: bool) -> str:
    """The URL as it will be used. Raises `ValueError` saying what to change.

    yarl parses it here and for the request (aiohttp), so no second parser can read it otherwise. Which addresses may be reached is
    decided when connecting, not here.
    """
    if not text.isprintable() or " " in text or len(text) > _URL_CHARS_MAX:
        raise ValueError(f"the URL must have at most {_URL_CHARS_MAX} printable characters and no spaces")
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise ValueError(f"the URL cannot be read: {error}") from None
    if url.scheme != "https" and not (allow_insecure and url.scheme == "http"):
        raise ValueError("the URL must start with https://")
    if not url.host:
        raise ValueError("the URL must name a host")
    if url.user is not None or url.password is not None:
        raise ValueError("the URL must not hold a user name or password: receivers verify the signature instead")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return text


def secret_text(secret: bytes) -> str:
    """`whsec_` + base64, as Standard Webhooks libraries take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def add(
    connection: Connection[Any],
    keyring: Keyring,
    endpoint: EndpointId,
    *,
    organization: str,
    mode: Mode,
    url: str,
    description: str,
    event_types: Sequence[str] | None,
    random: bytes,
    allow_insecure: bool,
    actor: str,
) -> tuple[Endpoint, str]:
    """The endpoint and its signing secret, shown once. `random` is `SECRET_BYTES` long. Raises `NotThere`, `ValueError`."""
    if len(random) != SECRET_BYTES:
        raise ValueError(f"random must hold {SECRET_BYTES} bytes")
    made = Endpoint(
        endpoint, organization, mode, check_url(url, allow_insecure=allow_insecure), description,
        tuple(event_types) if event_types else None, True, None,
    )  # fmt: skip
    require(connection, organization)
    master_key_id, sealed = keyring.encrypt(random, endpoint.encode())
    with connection.transaction():
        values = {**made._asdict(), "event_types": list(event_types) if event_types else None}
        connection.execute(load("access", "insert_endpoint"), values)
        connection.execute(
            load("access", "insert_endpoint_secret"), {"endpoint": endpoint, "ciphertext": sealed, "master_key_id": master_key_id}
        )
        audit.record(
            connection,
            actor=actor,
            action="endpoint.created",
            organization=organization,
            target=endpoint,
            detail={"url": url, "mode": mode},
        )
    return made, secret_text(random)


def list_all(connection: Connection[Any]) -> list[Endpoint]:
    return [
        Endpoint._make((*row[:5], tuple(row[5]) if row[5] else None, *row[6:]))
        for row in connection.execute(load("access", "list_endpoints"))
    ]


def rewrap(connection: Connection[Any], keyring: Keyring, *, actor: str) -> int:
    """Encrypt every secret that is not under the newest master key again; returns how many. Raises `KeyringError`."""
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
        if changed:
            audit.record(
                connection, actor=actor, action="secrets.rewrapped", organization=None, target=keyring.newest, detail={"count": changed}
            )
    return changed
