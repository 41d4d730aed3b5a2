"""Which format a request is in, and its events. Pure.

One event: native JSON, CloudEvents structured or binary. Many: a JSON array or NDJSON of native events, or a CloudEvents batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw

from ingest import cloudevents
from ingest.accept import Draft, native
from schemas.events import IDEMPOTENCY_KEY_CHARS_MAX
from schemas.problems import (
    INVALID_HEADER,
    INVALID_REQUEST,
    MALFORMED_JSON,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemError,
)

RawHeaders = Sequence[tuple[bytes, bytes]]
Format = Literal["native", "structured", "binary"]
BatchFormat = Literal["array", "lines", "cloudevents"]
Coding = Literal["identity", "gzip", "zstd"]

ITEMS_MAX: Final = 1_000

_UTF8: Final = rb'\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z'
_NATIVE: Final = re.compile(rb"\A\s*application/json" + _UTF8, re.IGNORECASE)
_STRUCTURED: Final = re.compile(rb"\A\s*application/cloudevents\+json" + _UTF8, re.IGNORECASE)
_BATCH: Final = re.compile(rb"\A\s*application/cloudevents-batch\+json" + _UTF8, re.IGNORECASE)
_LINES: Final = re.compile(rb"\A\s*application/(x-ndjson|ndjson|jsonl|x-jsonlines)" + _UTF8, re.IGNORECASE)
_OTHER_CHARSET: Final = re.compile(r";\s*charset\s*=\s*(?!\"?(utf-8|us-ascii)\"?\s*(;|\Z))", re.IGNORECASE)
#: RFC 9651 section 3.3.3: a structured-field string holds printable ASCII, with `"` and `\` escaped.
_SF_STRING: Final = re.compile(rb'\A"((?:[ !#-\[\]-~]|\\["\\])*)"\Z')
#: A bare token is taken too: most clients send their key without quotes, and it cannot be mistaken for anything else.
_BARE_KEY: Final = re.compile(rb"\A[!#-\[\]-~]+\Z")
_ACCEPT_ENCODING: Final = {"Accept-Encoding": "gzip, zstd, identity"}

#: An array is read into a struct of one more field than there may be items: what comes after that is checked to be JSON and not kept,
#: where a list of millions of small items would take hundreds of megabytes before it could be counted.
_Items: Final[Any] = msgspec.defstruct("_Items", [(f"item{n}", Raw, Raw()) for n in range(ITEMS_MAX + 1)], array_like=True)
_items_decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Items)
#: The decoder refuses half a surrogate pair anywhere, which is for each event to answer: other digits are read in its place.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_BETWEEN: Final = re.compile(rb"[ \t\r\n,]*")
_BLANK: Final = b" \t\r\n"
#: A line that is not blank, and the blank ones before it. It matches at once wherever the text does not end in blanks.
_LINE: Final = re.compile(rb"[ \t\r\n]*([^\n]+)")


class Shape(NamedTuple):
    """What the headers say about a request with one event."""

    format: Format
    coding: Coding
    content_type: str | None
    idempotency_key: str | None


def shape_of(headers: RawHeaders) -> Shape:
    """Before the body is read. Raises the problems `unsupported-media-type` and `invalid-header`."""
    content_type, is_cloudevent, has_key, is_coded = None, False, False, False
    for name, value in headers:
        if name == b"content-type":
            if content_type is not None:
                raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "There is more than one Content-Type header. Send exactly one.")
            content_type = value
        elif name == b"idempotency-key":
            has_key = True
        elif name == b"content-encoding":
            is_coded = True
        elif name.startswith(cloudevents.PREFIX):
            is_cloudevent = True
    key = idempotency_key_of(headers) if has_key else None
    coding = coding_of(headers) if is_coded else "identity"
    if content_type is not None and _STRUCTURED.match(content_type):
        shape = Shape("structured", coding, None, key)
    elif is_cloudevent:
        shape = Shape("binary", coding, _binary_content_type(content_type), key)
    elif content_type is not None and _NATIVE.match(content_type):
        return Shape("native", coding, None, key)
    else:
        raise ProblemError(
            UNSUPPORTED_MEDIA_TYPE,
            "Send one event with `Content-Type: application/json` or `application/cloudevents+json` in UTF-8, or as a CloudEvent in the "
            "binary mode; many go to /events/batch.",
        )
    if key is not None:
        raise ProblemError(INVALID_HEADER, "A CloudEvent's key is its source and id. Leave the Idempotency-Key header out.")
    return shape


def one(body: bytes, headers: RawHeaders, shape: Shape, *, payload_bytes_max: int) -> Draft:
    """The event of a request. Raises `ProblemError`."""
    if shape.format == "native":
        return native(body, shape.idempotency_key, payload_bytes_max=payload_bytes_max)
    if shape.format == "structured":
        return cloudevents.structured(body, payload_bytes_max=payload_bytes_max)
    return cloudevents.binary(body, headers, shape.content_type, payload_bytes_max=payload_bytes_max)


def batch_format_of(headers: RawHeaders) -> BatchFormat:
    """Raises the problems `unsupported-media-type` and `invalid-header`."""
    content_types = [value for name, value in headers if name == b"content-type"]
    if any(name == b"idempotency-key" for name, _ in headers):
        raise ProblemError(INVALID_HEADER, "Each event of a batch has a key of its own. Leave the Idempotency-Key header out.")
    if len(content_types) == 1:
        found: tuple[tuple[re.Pattern[bytes], BatchFormat], ...] = ((_NATIVE, "array"), (_LINES, "lines"), (_BATCH, "cloudevents"))
        for pattern, batch_format in found:
            if pattern.match(content_types[0]):
                return batch_format
    raise ProblemError(
        UNSUPPORTED_MEDIA_TYPE,
        "Send a batch as `application/json` (an array), `application/x-ndjson` or `application/cloudevents-batch+json`, in UTF-8.",
    )


def items_of(body: bytes, batch_format: BatchFormat) -> list[bytes]:
    """The items of a batch, unread, each of them an event or something wrong. Raises the problems `malformed-json`, `invalid-request`."""
    if batch_format == "lines":
        items = [line[1] for line in islice(_LINE.finditer(body.rstrip(_BLANK)), ITEMS_MAX + 1)]
    else:
        items = _items_of_array(body)
    if not 1 <= len(items) <= ITEMS_MAX:
        count = len(items) if len(items) <= ITEMS_MAX else "more"
        raise ProblemError(INVALID_REQUEST, f"A batch has 1 to {ITEMS_MAX} events, this one {count}. Nothing of it was appended.")
    return items


def _items_of_array(body: bytes) -> list[bytes]:
    """At most one more than there may be."""
    readable, replaced = _SURROGATE.subn(rb"\\u0020", body)
    try:
        found = msgspec.structs.astuple(_items_decoder.decode(readable))
    except msgspec.ValidationError:
        raise ProblemError(INVALID_REQUEST, "A batch is a JSON array of events. Send one event to /events.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}. Nothing of it was appended.") from None
    except RecursionError:
        detail = (
            "An event of the batch is nested so deep that they cannot be told apart. Make it flatter; nothing of the batch was appended."
        )
        raise ProblemError(INVALID_REQUEST, detail, members={"reason": "too_deep"}) from None
    items = [item for item in map(bytes, found) if item]
    return _same_places(body, items) if replaced else items


def _same_places(body: bytes, items: Sequence[bytes]) -> list[bytes]:
    """What stands in the array `body` where `items` stand in one that is the same but for characters within them."""
    at, found = body.index(b"[") + 1, []
    for one in items:
        between = _BETWEEN.match(body, at)
        at = at if between is None else between.end()
        found.append(body[at : at + len(one)])
        at += len(one)
    return found


def item(body: bytes, *, batch_format: BatchFormat, payload_bytes_max: int, body_bytes_max: int) -> Draft:
    """One item of a batch. Raises `ProblemError`.

    `body_bytes_max` is what it could have as a request of its own: what is longer is not looked at, because reading costs many times
    its bytes.
    """
    if len(body) > body_bytes_max:
        detail = f"The event has {len(body)} bytes, at most {body_bytes_max} are taken, {payload_bytes_max} of them payload."
        raise ProblemError(PAYLOAD_TOO_LARGE, f"{detail} Send a reference to it.")
    if batch_format == "cloudevents":
        return cloudevents.structured(body, payload_bytes_max=payload_bytes_max)
    return native(body, None, payload_bytes_max=payload_bytes_max)


def coding_of(headers: RawHeaders) -> Coding:
    """How the body is compressed. Raises the problem `unsupported-media-type`."""
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if not codings or codings == [b"identity"]:
        return "identity"
    if codings in ([b"gzip"], [b"x-gzip"]):
        return "gzip"
    if codings == [b"zstd"]:
        return "zstd"
    raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the body with one Content-Encoding at most: gzip or zstd.", headers=_ACCEPT_ENCODING)


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


def _binary_content_type(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.strip().decode("latin-1")
    if cloudevents.is_json(text) and _OTHER_CHARSET.search(text):
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send JSON data in UTF-8.")
    return text
