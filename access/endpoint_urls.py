"""Where an endpoint may be: what its URL alone can tell. Which addresses may be reached is decided when connecting."""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

URL_CHARS_MAX: Final = 2_048


def check_url(text: str, *, allow_insecure: bool) -> str:
    """The URL as it will be used. Raises `ValueError` saying what to change.

    yarl parses it here and for the request (aiohttp), so no second parser can read it otherwise. Which addresses may be reached is
    decided when connecting, not here.
    """
    if not text.isprintable() or " " in text or len(text) > URL_CHARS_MAX:
        raise ValueError(f"the URL must have at most {URL_CHARS_MAX} printable characters and no spaces")
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
