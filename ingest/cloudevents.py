"""CloudEvents 1.0 as drafts: structured (`application/cloudevents+json`) and binary (`ce-` headers). Pure.

A CloudEvent's dedup key is its `source` and `id`, which identify it (CloudEvents 1.0 section 3.1.1). All its context attributes are kept
beside the event. JSON data stays the exact slice; any other data is carried as base64 with its content type, the same in both modes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Raw

from ingest.accept import ENVELOPE, JSON_CONTENT_TYPE, Draft, check_json, check_size, check_text, draft, invalid
from schemas.events import Attribute
from schemas.keys import cloudevents_dedup_key
from schemas.problems import INVALID_EVENT, INVALID_HEADER, MALFORMED_JSON, ProblemError

RawHeaders = Sequence[tuple[bytes, bytes]]

PREFIX: Final = b"ce-"
_SPECVERSION: Final = "1.0"
_ATTRIBUTES_MAX: Final = 64
_ATTRIBUTES_CHARS_MAX: Final = 16_384
_ID_CHARS_MAX: Final = 512
_CONTENT_TYPE_CHARS_MAX: Final = 256
#: CloudEvents 1.0 section 2, "attribute naming convention".
_NAME: Final = re.compile(r"\A[a-z0-9]{1,64}\Z")
#: A media type (RFC 9110 section 8.3.1), loosely: enough to be repeated in a header.
_MEDIA_TYPE: Final = re.compile(r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\t -~]*)?\Z")
_INTEGER_MAX: Final = 2**31 - 1
_QUOTED: Final = re.compile(r'\A"((?:[^"\\]|\\.)*)"\Z')

_NO_DATA: Final = b"null"


def structured(body: bytes, *, payload_bytes_max: int) -> Draft:
    """One event in the JSON format (CloudEvents JSON Event Format 1.0). Raises `ProblemError` as `accept.native` does."""
    check_json(body, around=ENVELOPE)
    try:
        members = msgspec.json.decode(body, type=dict[str, Raw])
    except msgspec.ValidationError:
        raise ProblemError(INVALID_EVENT, "A CloudEvent is a JSON object. See docs/cloudevents.md.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None
    data, data_base64 = members.pop("data", None), members.pop("data_base64", None)
    attributes = _attributes({name: _value(name, msgspec.json.decode(value)) for name, value in members.items()})
    content_type = str(attributes.get("datacontenttype", JSON_CONTENT_TYPE))
    if data is not None and data_base64 is not None:
        raise invalid("data_base64", "stands beside data: send one of them")
    if data_base64 is not None:
        return _binary_data(attributes, content_type, _decode_base64(data_base64), payload_bytes_max)
    if data is None:
        return _json_data(attributes, content_type, _NO_DATA, payload_bytes_max)
    if is_json(content_type):
        return _json_data(attributes, content_type, bytes(data), payload_bytes_max)
    text = msgspec.json.decode(data)
    if not isinstance(text, str):
        raise invalid("data", f"must be a string where datacontenttype is {content_type}, or send data_base64")
    return _binary_data(attributes, content_type, text.encode(), payload_bytes_max)


def binary(body: bytes, headers: RawHeaders, content_type: str | None, *, payload_bytes_max: int) -> Draft:
    """One event whose attributes are headers and whose data is the body (CloudEvents HTTP Protocol Binding 1.0, section 3.1)."""
    found: dict[str, Attribute | None] = {}
    for raw_name, raw_value in headers:
        if raw_name.startswith(PREFIX):
            name = raw_name[len(PREFIX) :].decode("latin-1")
            if name in found:
                raise ProblemError(INVALID_HEADER, f"There is more than one ce-{name} header. Send exactly one.")
            found[name] = _value(name, _header_text(name, raw_value))
    if "datacontenttype" in found:
        raise invalid("datacontenttype", "is the Content-Type header in the binary mode: leave ce-datacontenttype out")
    if content_type is not None:
        found["datacontenttype"] = content_type
    attributes = _attributes(found)
    if not body:
        return _json_data(attributes, content_type or JSON_CONTENT_TYPE, _NO_DATA, payload_bytes_max)
    if content_type is not None and not is_json(content_type):
        return _binary_data(attributes, content_type, body, payload_bytes_max)
    check_json(body)
    return _json_data(attributes, content_type or JSON_CONTENT_TYPE, body.strip(b" \t\r\n"), payload_bytes_max)


def is_json(content_type: str) -> bool:
    """Whether data of this media type is JSON (CloudEvents JSON Event Format 1.0 section 3.1: subtype `json` or a `+json` suffix)."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence.endswith(("/json", "+json"))


def _json_data(attributes: Mapping[str, Attribute], content_type: str, payload: bytes, payload_bytes_max: int) -> Draft:
    check_size(len(payload), payload_bytes_max)
    return _draft(attributes, content_type, payload, is_base64=False)


def _binary_data(attributes: Mapping[str, Attribute], content_type: str, data: bytes, payload_bytes_max: int) -> Draft:
    check_size(len(data), payload_bytes_max)
    return _draft(attributes, content_type, b'"%b"' % base64.b64encode(data), is_base64=True)


def _draft(attributes: Mapping[str, Attribute], content_type: str, payload: bytes, *, is_base64: bool) -> Draft:
    subject, time = attributes.get("subject"), attributes.get("time")
    return draft(
        str(attributes["type"]),
        payload,
        cloudevents_dedup_key(str(attributes["source"]), str(attributes["id"])),
        None if subject is None else str(subject),
        None if time is None else str(time),
        time_field="time",
        content_type=content_type,
        base64=is_base64,
        cloudevent=attributes,
    )


def _attributes(found: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    """The context attributes, checked. One that is null is one that is absent (JSON Event Format section 2.2)."""
    attributes = {name: value for name, value in found.items() if value is not None}
    if attributes.get("specversion") != _SPECVERSION:
        raise invalid("specversion", f'must be "{_SPECVERSION}": other versions of CloudEvents are not taken')
    for name in ("id", "source", "type"):
        if not isinstance(attributes.get(name), str):
            raise invalid(name, "must be there and be a string: every CloudEvent has id, source, specversion and type")
        check_text(name, str(attributes[name]), _ID_CHARS_MAX)
    for name in ("subject", "time", "dataschema", "datacontenttype"):
        if not isinstance(attributes.get(name, ""), str):
            raise invalid(name, "must be a string")
    if not _MEDIA_TYPE.match(str(attributes.get("datacontenttype", JSON_CONTENT_TYPE))[:_CONTENT_TYPE_CHARS_MAX]):
        raise invalid("datacontenttype", f"must be a media type such as {JSON_CONTENT_TYPE}")
    check_text("datacontenttype", str(attributes.get("datacontenttype", JSON_CONTENT_TYPE)), _CONTENT_TYPE_CHARS_MAX)
    if len(attributes) > _ATTRIBUTES_MAX or sum(len(name) + len(str(value)) for name, value in attributes.items()) > _ATTRIBUTES_CHARS_MAX:
        limit = f"{_ATTRIBUTES_MAX} attributes of {_ATTRIBUTES_CHARS_MAX} characters together"
        raise ProblemError(INVALID_EVENT, f"A CloudEvent may have {limit}. Put the rest into its data.")
    return attributes


def _value(name: str, value: Any) -> Attribute | None:
    """One attribute. Raises the problem `invalid-event`."""
    if not _NAME.match(name):
        raise invalid(repr(name[:64]), "is no attribute name: lower-case letters and digits only (CloudEvents 1.0, naming conventions)")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= _INTEGER_MAX:
        return value
    if isinstance(value, str):
        check_text(name, value, _ATTRIBUTES_CHARS_MAX)
        return value
    raise invalid(name, "must be a string, a boolean or a 32-bit integer (CloudEvents 1.0, type system)")


def _header_text(name: str, value: bytes) -> str:
    """A header's value as an attribute: unquoted, then percent-decoded once (HTTP Protocol Binding section 3.1.3.2)."""
    try:
        text = value.strip().decode("ascii")
        if quoted := _QUOTED.match(text):
            text = re.sub(r"\\(.)", r"\1", quoted[1])
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ProblemError(
            INVALID_HEADER, f"ce-{name} is not printable ASCII with percent-encoded UTF-8 (CloudEvents HTTP binding, section 3.1.3.2)."
        ) from None


def _decode_base64(value: Raw) -> bytes:
    text = msgspec.json.decode(value)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise invalid("data_base64", "must be a string in base64 (RFC 4648 section 4), with its padding") from None
