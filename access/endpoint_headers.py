"""Which request headers an endpoint may add to its webhooks: none that frames the message, speaks for the sender or signs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

HEADERS_MAX: Final = 20
NAME_CHARS_MAX: Final = 128
VALUE_BYTES_MAX: Final = 4_096
#: RFC 9110 section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Ours: they frame the message (RFC 9110, RFC 9112), describe its body, or say who sends it. Lower case.
_OURS: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
        "proxy-authorization", "proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
        "user-agent", "x-request-id",
    }
)  # fmt: skip
_OURS_PREFIX: Final = "webhook-"


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises `ValueError` saying which name is at fault and why. Values are not repeated: they may be secrets."""
    if len(headers) > HEADERS_MAX:
        raise ValueError(f"an endpoint may have {HEADERS_MAX} headers of its own")
    seen: set[str] = set()
    for name, value in headers.items():
        check_name(name)
        if name.lower() in seen:
            raise ValueError(f"the header {name} is there twice: upper and lower case are the same")
        seen.add(name.lower())
        if not value.isascii() or not value.isprintable() or value != value.strip(" ") or len(value) > VALUE_BYTES_MAX:
            raise ValueError(
                f"the value of the header {name} must be at most {VALUE_BYTES_MAX} printable ASCII characters, without spaces around it"
            )


def check_name(name: str) -> None:
    """A header name an endpoint may choose. Raises `ValueError`."""
    if len(name) > NAME_CHARS_MAX or not _TOKEN.fullmatch(name):
        raise ValueError(f"a header's name must be 1 to {NAME_CHARS_MAX} letters, digits and any of !#$%&'*+-.^_`|~")
    if name.lower() in _OURS or name.lower().startswith(_OURS_PREFIX):
        raise ValueError(f"the header {name} is set by the sender: choose another name")
