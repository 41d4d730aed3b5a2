"""Headers of a customer's own on webhooks: which may be set. Pure.

What frames the message, what names the sender or the receiver, and what the signature stands on is ours (RFC 9110 section 7.6.1, RFC 9112,
Standard Webhooks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

HEADERS_MAX: Final = 20
NAME_CHARS_MAX: Final = 128
VALUE_CHARS_MAX: Final = 1_024
#: Names and values together. Many receivers take no more than 8 KiB of headers, ours included.
CHARS_MAX: Final = 4_096

#: RFC 9110 section 5.6.2: a token.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110 section 5.5, without obsolete bytes: visible ASCII, with spaces and tabs inside.
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_OURS: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "cookie2",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "max-forwards",
        "origin",
        "referer",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-real-ip",
        "x-request-id",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    }
)
#: Standard Webhooks under both of its names; what proxies and browsers add; what we may set one day.
_OUR_PREFIXES: Final = ("webhook-", "svix-", "proxy-", "sec-", "x-forwarded-", "x-triggers-")


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises `ValueError` saying what to change. Values are never repeated: they may be secrets."""
    if len(headers) > HEADERS_MAX:
        raise ValueError(f"an endpoint takes at most {HEADERS_MAX} headers")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("header names must differ in more than upper and lower case")
    if sum(len(name) + len(value) for name, value in headers.items()) > CHARS_MAX:
        raise ValueError(f"the headers may have {CHARS_MAX} characters together, names and values")
    for name, value in headers.items():
        check_name(name)
        if len(value) > VALUE_CHARS_MAX or not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of header {name} must have 1 to {VALUE_CHARS_MAX} printable ASCII characters, without spaces at its ends"
            )


def check_name(name: str) -> None:
    """A header name that a customer may choose. Raises `ValueError`."""
    if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
        raise ValueError(f"a header's name must have 1 to {NAME_CHARS_MAX} letters, digits, - or _, and no spaces or colons")
    if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES):
        raise ValueError(f"the header {name} is set by the sender and cannot be changed")
