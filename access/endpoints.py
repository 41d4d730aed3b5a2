"""Webhook endpoints as registered: URL, event types, signing secrets. Delivering to them is `delivery`."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit, organizations
from access.egress import Rules, check_url
from access.secrets import Keyring
from access.texts import one_line
from runtime.sql import load
from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, Mode
from schemas.ids import EndpointId

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every signing secret starts with
#: Bytes of a signing secret (Standard Webhooks: 24 to 64).
SECRET_BYTES: Final = 24
_DESCRIPTION_CHARS_MAX: Final = 1_000
_EVENT_TYPES_MAX: Final = 100
_EVENT_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)


class Endpoint(NamedTuple):
    id: EndpointId
    organization: str
    mode: Mode
    url: str
    description: str
    event_types: tuple[str, ...] | None
    enabled: bool
    disabled_reason: str | None


def check_event_types(event_types: Sequence[str]) -> tuple[str, ...]:
    """Types that an event can have, each once. Raises `ValueError`: an endpoint for any other would wait for ever."""
    if len(event_types) > _EVENT_TYPES_MAX:
        raise ValueError(f"an endpoint takes at most {_EVENT_TYPES_MAX} event types by name; with none it takes all")
    for event_type in event_types:
        if len(event_type) > EVENT_TYPE_CHARS_MAX or not _EVENT_TYPE.fullmatch(event_type):
            raise ValueError(f"{event_type!r} is no event type: use letters, digits, _ and - in parts joined by dots, like order.created")
    return tuple(dict.fromkeys(event_types))


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
    rules: Rules,
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
        check_url(url, rules),
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
