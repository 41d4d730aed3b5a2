"""The body of a request: counted while it comes, inflated while it comes, never held beyond its limit.

What is too long is refused without reading on. A compressed body is bounded twice: as sent and as inflated.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Protocol

from ingest.connection import WHOLE_BODY
from ingest.formats import Coding
from schemas.problems import BODY_TOO_LARGE, INVALID_BODY, ProblemError

if sys.version_info >= (3, 14):
    from compression import zstd as zstd  # noqa: PLC0414 - one name for both, also for the tests
else:
    from backports import zstd as zstd  # noqa: PLC0414

RawHeaders = Sequence[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: zlib's window for gzip with its header (zlib manual, inflateInit2), and the largest window a zstd frame may ask for: 8 MiB, what
#: RFC 8878 section 3.1.1.1.2 tells every decoder to support.
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZSTD_OPTIONS: Final[Mapping[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
#: Inflated at once.
_STEP_BYTES: Final = 65_536
#: gzip members or zstd frames of a body. An empty one is 8 to 20 bytes and costs a decoder of its own: 5 MB of them took 14 s.
_MEMBERS_MAX: Final = 1_000


class ClientGone(Exception):
    """The caller closed the connection before its body was whole: there is nobody to answer."""


def body_at_hand(scope: Mapping[str, Any], coding: Coding, *, bytes_max: int, what: str) -> bytes | None:
    """As `read_body`, for a body that came whole with its head and is not compressed; None for every other. Raises `body-too-large`."""
    whole = scope.get(WHOLE_BODY)
    if whole is None or coding != "identity":
        return None
    body: bytes | None = whole()
    if body is not None and len(body) > bytes_max:
        raise _too_large(what)
    return body


async def read_body(headers: RawHeaders, receive: Receive, coding: Coding, *, bytes_max: int, what: str) -> bytes:
    """The whole body, inflated. `what` names the limit for the caller of the API.

    Raises the problems `body-too-large` and `invalid-body`, and `ClientGone`.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > bytes_max:
            raise _too_large(what)
    inflater = None if coding == "identity" else _Inflater(coding)
    parts: list[bytes] = []
    received = size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        received += len(part)
        if received > bytes_max:
            raise _too_large(what)
        if inflater is None:
            parts.append(part)
        else:
            size += inflater.add(part, parts, bytes_max - size, what)
        if not message.get("more_body"):
            break
    if inflater is not None:
        inflater.end()
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Decompressor(Protocol):
    """What zlib's and zstd's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflater:
    """gzip members or zstd frames, one behind the other (RFC 1952 section 2.2, RFC 8878 section 3)."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._members = 0
        self._one = self._begin()

    def _begin(self) -> _Decompressor:
        self._members += 1
        if self._members > _MEMBERS_MAX:
            detail = (
                f"The body is more than {_MEMBERS_MAX} {self._coding} streams one behind the other. Send it as one. Nothing was appended."
            )
            raise ProblemError(INVALID_BODY, detail)
        return _Gzip() if self._coding == "gzip" else zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)

    def add(self, data: bytes, parts: list[bytes], bytes_left: int, what: str) -> int:
        """Inflate `data` onto `parts`; how many bytes that were. Never inflates more than a step past `bytes_left`."""
        size = 0
        while data or not self._one.eof:
            if self._one.eof:
                self._one = self._begin()
            try:
                part = self._one.decompress(data, _STEP_BYTES)
            except (zlib.error, zstd.ZstdError) as error:
                raise ProblemError(INVALID_BODY, f"The body is not {self._coding}: {error}. Nothing was appended.") from None
            size += len(part)
            if size > bytes_left:
                raise _too_large(what)
            parts.append(part)
            data = self._one.unused_data if self._one.eof else b""
            if not data and len(part) < _STEP_BYTES:
                break
        return size

    def end(self) -> None:
        if not self._one.eof:
            raise ProblemError(INVALID_BODY, f"The {self._coding} body ends too early. Nothing was appended; send it again.")


class _Gzip:
    """zlib's decompressor with the interface of the newer ones: it keeps its own unconsumed input."""

    def __init__(self) -> None:
        self._one = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._one.eof

    @property
    def unused_data(self) -> bytes:
        return self._one.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._one.decompress(self._one.unconsumed_tail + data, max_length)


def _too_large(what: str) -> ProblemError:
    return ProblemError(BODY_TOO_LARGE, what, headers={"Connection": "close"})
