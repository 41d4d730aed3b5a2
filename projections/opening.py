"""Encrypted events made readable where they leave: everything before carries the envelope as it is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Raw
from psycopg import AsyncConnection

from access.data_keys import DataKeys
from access.envelopes import DataKey, EnvelopeError, attempt_name, key_id
from projections import queries
from projections.queries import Owner
from runtime.telemetry import log
from schemas import codec
from schemas.events import ENCRYPTED, PLAIN, SCHEMA_VERSION, Attribute, Ingested
from schemas.ids import EventId


class Shown(NamedTuple):
    """What may be shown of an event: nothing of one that was erased."""

    erased: bool
    subject: str | None
    cloudevent: str | None
    payload: bytes


def sealed(owner: Owner, event_id: str, payload: bytes) -> Ingested:
    """As much of an encrypted event as its envelope is bound to."""
    return Ingested(
        v=SCHEMA_VERSION, id=EventId(event_id), organization=owner.organization, mode=owner.mode, type="", received_at_ms=0, fingerprint="",
        encoding=ENCRYPTED, payload=Raw(payload),
    )  # fmt: skip


def opened(event: Ingested, key: DataKey | None) -> Shown:
    """What cannot be opened any more is erased."""
    if key is None:
        return Shown(True, None, None, b"null")
    try:
        found = key.open(event)
    except EnvelopeError as error:
        log.error("envelope.unreadable", event_id=event.id, error=str(error))
        return Shown(True, None, None, b"null")
    return Shown(False, found.subject, _text(found.cloudevent), found.payload)


async def page(
    connection: AsyncConnection[Any], keys: DataKeys, owner: Owner, items: Sequence[queries.Item]
) -> list[tuple[queries.Item, bool]]:
    """The items as they were sent, each with whether it was erased: one look-up of keys at most."""
    if all(item.encoding == PLAIN for item in items):
        return [(item, False) for item in items]
    named = {item.event_id: key_id(bytes(item.payload)) for item in items if item.encoding != PLAIN}
    found = await keys.by_ids(connection, owner.organization, (one for one in named.values() if one is not None))
    shown: list[tuple[queries.Item, bool]] = []
    for item in items:
        if item.encoding == PLAIN:
            shown.append((item, False))
            continue
        name = named[item.event_id]
        seen = opened(sealed(owner, item.event_id, bytes(item.payload)), None if name is None else found.get(name))
        shown.append((item._replace(subject=seen.subject, cloudevent=seen.cloudevent, payload=seen.payload), seen.erased))
    return shown


async def event(
    connection: AsyncConnection[Any], keys: DataKeys, owner: Owner, event_id: EventId, found: queries.Event
) -> tuple[queries.Event, bool]:
    """The event with its own subject, size and digest, and whether it was erased."""
    if found.envelope is None:
        return found, False
    payload = bytes(found.envelope)
    name = key_id(payload)
    held = {} if name is None else await keys.by_ids(connection, owner.organization, [name])
    seen = opened(sealed(owner, event_id, payload), None if name is None else held.get(name))
    if seen.erased:
        return found, True
    sha256 = hashlib.sha256(seen.payload).hexdigest()
    return found._replace(subject=seen.subject, payload_bytes=len(seen.payload), payload_sha256=sha256), False


class Answered(Protocol):
    """An attempt whose answer is sealed."""

    @property
    def event_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def response(self) -> str | None: ...
    @property
    def round(self) -> str | None: ...


def answer(owner: Owner, endpoint: str, made: Answered, key: DataKey | None) -> str | None:
    """The beginning of the answer's body, base64; None where it was erased with its event."""
    if key is None or made.response is None:
        return None
    try:
        name = attempt_name(endpoint, made.round or "", made.attempt)
        return base64.b64encode(key.open_response(made.response, sealed(owner, made.event_id, b""), name)).decode()
    except EnvelopeError as error:
        log.error("envelope.unreadable", event_id=made.event_id, error=str(error))
        return None


def _text(cloudevent: dict[str, Attribute] | None) -> str | None:
    return None if cloudevent is None else codec.encode_attributes(cloudevent)
