"""What one answer may bring, counted where bytes come in: heads that never end and empty chunks never reach whoever reads the body."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp


class TooMuch(aiohttp.ClientPayloadError):
    """An answer that goes on past every limit."""


class Meter(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and cuts the connection when an answer is too long."""

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner: Final = inner
        self._transport: Final = transport
        self._bytes_left = 0
        self._cut = False

    def allow(self, bytes_max: int) -> None:
        """The next answer begins."""
        self._bytes_left = bytes_max

    def data_received(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._cut = True
            self._transport.abort()
        elif not self._cut:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(TooMuch("the answer goes on past every limit") if self._cut else exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
