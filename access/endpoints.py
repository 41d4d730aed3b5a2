"""Webhook endpoints as registered: URL, event types, signing secrets. Delivering to them is `delivery`."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection
from yarl import URL

from access import audit, organizations
from access.event_filters import check_event_types
from access.secrets import Keyring
from access.texts import one_line
from runtime.sql import load
from schemas.events import Mode
from schemas.ids import EndpointId

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every signing secret starts with
#: Bytes of a signing secret (Standard Webhooks: 24 to 64).
SECRET_BYTES: Final = 24
_URL_CHARS_MAX: Final = 2_048
_DESCRIPTION_CHARS_MAX: Final = 1_000


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
        host, port = url.host, url.port
    except ValueError as error:  # also what the IDNA codec raises
        raise ValueError(f"the URL cannot be read: {error}") from None
    if url.scheme != "https" and not (allow_insecure and url.scheme == "http"):
        raise ValueError("the URL must start with https://")
    if not host:
        raise ValueError("the URL must name a host")
    if "%" in host:
        raise ValueError("the URL's host must be a plain name or address, without % in it")
    if "@" in _authority(text):
        raise ValueError("the URL must not hold a user name or password: receivers verify the signature instead")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return text


def _authority(text: str) -> str:
    """What stands between `//` and the path (RFC 3986 section 3.2). yarl drops an empty user name without a trace, so the text decides."""
    return re.split(r"[/?#]", text.split("//", 1)[-1], maxsplit=1)[0]


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
    """The endpoint and its signing secret, shown once. `random` is `SECRET_BYTES` long; no event types means all.

    Raises `NotThere`, `ValueError`.
    """
    if len(random) != SECRET_BYTES:
        raise ValueError(f"random must hold {SECRET_BYTES} bytes")
    made = Endpoint(
        endpoint,
        organization,
        mode,
        check_url(url, allow_insecure=allow_insecure),
        one_line("description", description, chars_min=0, chars_max=_DESCRIPTION_CHARS_MAX),
        check_event_types(event_types) if event_types else None,
        enabled=True,
        disabled_reason=None,
    )
    organizations.get(connection, organization)
    master_key_id, sealed = keyring.encrypt(random, endpoint.encode())
    with connection.transaction():
        values = {**made._asdict(), "event_types": list(made.event_types) if made.event_types else None}
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
