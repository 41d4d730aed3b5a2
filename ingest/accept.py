"""From the bytes of a request to an event, or to the problem that says what is wrong. Pure: no I/O, no clock, no settings of its own.

The payload is kept as the exact slice of JSON that was sent. What passes here can be read by every consumer (see `schemas.events`).
Native JSON is read here, CloudEvents in `ingest.cloudevents`; both end in `draft`, so that the same event is the same in every format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from schemas import strict
from schemas.events import (
    EVENT_TYPE_CHARS_MAX,
    EVENT_TYPE_PATTERN,
    IDEMPOTENCY_KEY_CHARS_MAX,
    RESERVED_TYPES,
    SUBJECT_CHARS_MAX,
    Attribute,
    is_reserved,
)
from schemas.keys import base64_fingerprint, fingerprint, native_dedup_key
from schemas.problems import INVALID_EVENT, MALFORMED_JSON, PAYLOAD_TOO_LARGE, ProblemError

_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# RFC 3339 section 5.6, without the leap second: Postgres and Python have none.
_TIME: Final = re.compile(r"\A\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)\Z", re.ASCII)
JSON_CONTENT_TYPE: Final = "application/json"
#: Levels around a payload: a native or structured event is an object that holds it.
ENVELOPE: Final = 1


class Draft(NamedTuple):
    """A valid event that has no id yet. `payload` is the slice of JSON as sent; with `base64` a JSON string of what is no JSON itself."""

    type: str
    payload: bytes
    dedup_key: str | None
    subject: str | None
    occurred_at: str | None
    fingerprint: str
    content_type: str = JSON_CONTENT_TYPE
    base64: bool = False
    cloudevent: Mapping[str, Attribute] | None = None


class _Native(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    payload: msgspec.Raw
    idempotency_key: str | None = None
    occurred_at: str | None = None
    subject: str | None = None


_decoder = msgspec.json.Decoder(_Native)


def native(body: bytes, header_key: str | None, *, payload_bytes_max: int) -> Draft:
    """A native JSON event. Raises `ProblemError`: 400 for what is no JSON, 413 for a long payload, 422 for what is no event."""
    check_json(body, around=ENVELOPE)
    try:
        event = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ProblemError(INVALID_EVENT, f"{error}. An event is {{type, payload, idempotency_key?, occurred_at?, subject?}}.") from None
    except (
        msgspec.DecodeError,
        RecursionError,
    ) as error:  # what passes `check_json` is JSON; another parser has the last word all the same
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None
    check_text("idempotency_key", event.idempotency_key, IDEMPOTENCY_KEY_CHARS_MAX)
    if header_key is not None and event.idempotency_key is not None and header_key != event.idempotency_key:
        raise invalid("idempotency_key", "differs from the Idempotency-Key header: send one of them, or the same in both")
    key = event.idempotency_key if event.idempotency_key is not None else header_key
    payload = bytes(event.payload)
    check_size(len(payload), payload_bytes_max)
    return draft(event.type, payload, None if key is None else native_dedup_key(key), event.subject, event.occurred_at)


def draft(
    event_type: str,
    payload: bytes,
    dedup_key: str | None,
    subject: str | None,
    occurred_at: str | None,
    *,
    time_field: str = "occurred_at",
    content_type: str = JSON_CONTENT_TYPE,
    base64: bool = False,
    cloudevent: Mapping[str, Attribute] | None = None,
) -> Draft:
    """Checks what every format has in common. Raises the problem `invalid-event`."""
    if not _TYPE.match(event_type) or len(event_type) > EVENT_TYPE_CHARS_MAX or event_type.endswith("\n"):
        raise invalid("type", f"must be letters, digits, `_` and `-` in parts joined by dots, at most {EVENT_TYPE_CHARS_MAX} characters")
    if is_reserved(event_type):
        raise invalid("type", f"may not begin with {RESERVED_TYPES}: such events are told by this service. Choose another name")
    check_text("subject", subject, SUBJECT_CHARS_MAX)
    if occurred_at is not None and not _is_time(occurred_at):
        raise invalid(time_field, "must be a time with its zone as in RFC 3339: 2026-11-24T02:31:23Z")
    print_of = base64_fingerprint if base64 else fingerprint
    return Draft(
        event_type, payload, dedup_key, subject, occurred_at, print_of(event_type, subject, payload), content_type, base64, cloudevent
    )


def check_json(body: bytes, *, around: int = 0) -> None:
    """`around`: see `schemas.strict.check`.

    Raises the problems `malformed-json` and, for JSON that is not taken, `invalid-event` with its `reason`.
    """
    try:
        strict.check(body, around=around)
    except strict.NotStrict as error:
        problem = MALFORMED_JSON if error.reason == "malformed" else INVALID_EVENT
        raise ProblemError(problem, f"The JSON {error.detail}.", members={"reason": error.reason}) from None


def check_size(size_bytes: int, payload_bytes_max: int) -> None:
    """Raises the problem `payload-too-large`."""
    if size_bytes > payload_bytes_max:
        raise ProblemError(
            PAYLOAD_TOO_LARGE, f"The payload has {size_bytes} bytes, at most {payload_bytes_max} are taken. Send a reference to it."
        )


def check_text(field: str, text: str | None, chars_max: int) -> None:
    """Raises the problem `invalid-event`."""
    if text is not None and (not 1 <= len(text) <= chars_max or _CONTROL.search(text)):
        raise invalid(field, f"must have 1 to {chars_max} characters and no control characters")


def _is_time(text: str) -> bool:
    if not _TIME.match(text):
        return False
    whole, _, _ = text.upper().partition(".")
    try:
        datetime.strptime(whole[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return True


def invalid(field: str, what: str) -> ProblemError:
    return ProblemError(INVALID_EVENT, f"{field} {what}.", members={"field": field})
