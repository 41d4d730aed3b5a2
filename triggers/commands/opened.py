"""An event of the log as an operator may read it: out of its envelope, where its data key is there."""

from __future__ import annotations

import psycopg

from access import data_keys
from access.envelopes import EnvelopeError, key_id
from access.secrets import Keyring, KeyringError
from runtime.postgres import connect
from runtime.settings import Settings
from schemas import codec
from schemas.codec import CodecError
from schemas.events import PLAIN, Ingested


def opened(settings: Settings, value: bytes | None) -> tuple[bytes | None, str | None]:
    """(the record to show, why it is still sealed). Of a record that is no encrypted event: itself and None."""
    event = _event(value)
    if event is None or event.encoding == PLAIN or (name := key_id(bytes(event.payload))) is None:
        return value, None
    try:
        with connect(settings.postgres, application="cli") as connection:
            keyring = Keyring.from_setting(settings.master_keys.get_secret_value())
            key = data_keys.read(connection, keyring, event.organization, [name]).get(name)
        return (value, "erased") if key is None else (codec.encode(key.plain(event)), None)
    except (psycopg.Error, KeyringError, EnvelopeError) as error:
        return value, f"sealed: {str(error).strip().splitlines()[0]}"


def _event(value: bytes | None) -> Ingested | None:
    """An ingested record, or the event inside an accepted one."""
    try:
        return codec.ingested.decode(value)
    except CodecError:
        pass
    try:
        return codec.accepted.decode(value).event
    except CodecError:
        return None
