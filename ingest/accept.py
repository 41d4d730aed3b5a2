"""From the bytes of a request to an event, or to the problem that says what is wrong. Pure: no I/O, no clock, no settings of its own.

The payload is kept as the exact slice of JSON that was sent. What passes here can be read by every consumer (see `schemas.events`).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, IDEMPOTENCY_KEY_CHARS_MAX, SUBJECT_CHARS_MAX
from schemas.keys import fingerprint, native_dedup_key
from schemas.problems import (
    INVALID_EVENT,
    INVALID_HEADER,
    MALFORMED_JSON,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemError,
)

#: Levels of arrays and objects in a payload (RFC 8259 section 9 lets a parser set a limit). Decoders end at Python's recursion limit less
#: their own call stack, so without a limit of ours a payload could pass here and be unreadable in a process that calls from deeper down.
NESTING_MAX: Final = 256

RawHeaders = Sequence[tuple[bytes, bytes]]

_CONTENT_TYPE: Final = re.compile(rb'\A\s*application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z', re.IGNORECASE)
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# RFC 3339 section 5.6, without the leap second: Postgres and Python have none.
_TIME: Final = re.compile(r"\A\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)\Z", re.ASCII)
# RFC 9651 section 3.3.3: a structured-field string holds printable ASCII, with `"` and `\` escaped.
_SF_STRING: Final = re.compile(rb'\A"((?:[ !#-\[\]-~]|\\["\\])*)"\Z')
#: A bare token is taken too: most clients send their key without quotes, and it cannot be mistaken for anything else.
_BARE_KEY: Final = re.compile(rb"\A[!#-\[\]-~]+\Z")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
#: Innermost pairs are taken away this often before depth is counted: wide payloads are gone by then.
_PEELED: Final = 8
_OPENING: Final = ord("[")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))


class Draft(NamedTuple):
    """A valid event that has no id yet. `payload` is the slice as sent."""

    type: str
    payload: bytes
    dedup_key: str | None
    subject: str | None
    occurred_at: str | None
    fingerprint: str


class _Native(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    payload: msgspec.Raw
    idempotency_key: str | None = None
    occurred_at: str | None = None
    subject: str | None = None


_decoder = msgspec.json.Decoder(_Native)


def check_headers(headers: RawHeaders) -> None:
    """Before the body is read. Raises the problem `unsupported-media-type`."""
    content_types = [value for name, value in headers if name == b"content-type"]
    if len(content_types) != 1 or not _CONTENT_TYPE.match(content_types[0]):
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the event with `Content-Type: application/json` in UTF-8.")
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if any(encoding != b"identity" for encoding in encodings):
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.", headers={"Accept-Encoding": "identity"})


def idempotency_key_of(headers: RawHeaders) -> str | None:
    """The `Idempotency-Key` header: a structured-field string (draft-ietf-httpapi-idempotency-key-header) or a bare token."""
    found = [value.strip() for name, value in headers if name == b"idempotency-key"]
    if not found:
        return None
    if len(found) > 1:
        raise ProblemError(INVALID_HEADER, "There is more than one Idempotency-Key header. Send exactly one.")
    if quoted := _SF_STRING.match(found[0]):
        key = re.sub(rb"\\(.)", rb"\1", quoted[1]).decode()
    elif _BARE_KEY.match(found[0]):
        key = found[0].decode()
    else:
        raise ProblemError(INVALID_HEADER, 'Idempotency-Key must be printable ASCII, best in double quotes: "order-17".')
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX:
        raise ProblemError(INVALID_HEADER, f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters.")
    return key


def accept(body: bytes, headers: RawHeaders, *, payload_bytes_max: int) -> Draft:
    """A native JSON event. Raises `ProblemError`: 400 for what is no JSON, 413 for a long payload, 422 for what is no event."""
    header_key = idempotency_key_of(headers)
    native = _decode(body)
    payload = bytes(native.payload)
    if len(payload) > payload_bytes_max:
        raise ProblemError(
            PAYLOAD_TOO_LARGE, f"The payload has {len(payload)} bytes, at most {payload_bytes_max} are taken. Send a reference to it."
        )
    if not _TYPE.match(native.type) or len(native.type) > EVENT_TYPE_CHARS_MAX or native.type.endswith("\n"):
        raise _invalid("type", f"must be letters, digits, `_` and `-` in parts joined by dots, at most {EVENT_TYPE_CHARS_MAX} characters")
    if _too_deep(payload):
        raise _invalid("payload", f"is nested more than {NESTING_MAX} levels deep: make it flatter, or send it as a string")
    _check_text("subject", native.subject, SUBJECT_CHARS_MAX)
    _check_text("idempotency_key", native.idempotency_key, IDEMPOTENCY_KEY_CHARS_MAX)
    if native.occurred_at is not None and not _is_time(native.occurred_at):
        raise _invalid("occurred_at", "must be a time with its zone as in RFC 3339: 2026-11-24T02:31:23Z")
    if header_key is not None and native.idempotency_key is not None and header_key != native.idempotency_key:
        raise _invalid("idempotency_key", "differs from the Idempotency-Key header: send one of them, or the same in both")
    key = native.idempotency_key if native.idempotency_key is not None else header_key
    return Draft(
        native.type,
        payload,
        None if key is None else native_dedup_key(key),
        native.subject,
        native.occurred_at,
        fingerprint(native.type, native.subject, payload),
    )


def _decode(body: bytes) -> _Native:
    if body.startswith(codecs.BOM_UTF8):
        raise ProblemError(MALFORMED_JSON, "The body begins with a byte order mark. Send UTF-8 without one (RFC 8259 section 8.1).")
    try:
        if not body.isascii():
            str(body, "utf-8")  # the payload is skipped over, not read, by the decoder
        return _decoder.decode(body)
    except UnicodeDecodeError as error:
        raise ProblemError(MALFORMED_JSON, f"The body is not UTF-8 (byte {error.start}).") from None
    except msgspec.ValidationError as error:
        raise ProblemError(INVALID_EVENT, f"{error}. An event is {{type, payload, idempotency_key?, occurred_at?, subject?}}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None


def _too_deep(payload: bytes) -> bool:
    """Whether valid JSON is nested deeper than `NESTING_MAX`. Linear; most payloads have too few brackets to be looked at."""
    if payload.count(b"[") + payload.count(b"{") <= NESTING_MAX:
        return False
    outside_strings = payload.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside_strings).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(_PEELED):
        brackets = brackets.replace(b"[]", b"")
    if len(brackets) <= 2 * (NESTING_MAX - _PEELED):
        return False
    steps = (1 if bracket == _OPENING else -1 for bracket in brackets)
    return max(accumulate(steps)) > NESTING_MAX - _PEELED


def _check_text(field: str, text: str | None, chars_max: int) -> None:
    if text is not None and (not 1 <= len(text) <= chars_max or _CONTROL.search(text)):
        raise _invalid(field, f"must have 1 to {chars_max} characters and no control characters")


def _is_time(text: str) -> bool:
    if not _TIME.match(text):
        return False
    whole, _, _ = text.upper().partition(".")
    try:
        datetime.strptime(whole[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return True


def _invalid(field: str, what: str) -> ProblemError:
    return ProblemError(INVALID_EVENT, f"{field} {what}.", members={"field": field})
