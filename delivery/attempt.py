"""One POST to one endpoint. Never retries, never follows a redirect, never takes longer than its deadline or more than its bytes, and never
reaches an address that the egress rules forbid."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from access import egress
from delivery.egress import Connector, EgressDenied, Guard, Resolver, system_lookup, tls_context
from delivery.local_failures import is_ours
from delivery.lookups import Lookup
from delivery.policy import LOCAL
from runtime.deadlines import Deadlines, Within
from runtime.settings import Settings
from runtime.telemetry import log

_READ_BYTES: Final = 16_384
#: One line of an answer's head, name and value of a header, and how many of them.
_LINE_BYTES_MAX: Final = 8_190
_HEADERS_MAX: Final = 100
#: Everything in front of the body, informational answers included, and what chunking adds to it.
_HEAD_BYTES_MAX: Final = 65_536
#: URLs whose verdict is remembered. What follows from the URL alone cannot change while the process runs.
_URLS_MAX: Final = 10_000


class Result(NamedTuple):
    """`status` is None when no answer came; then `error` is a class of `schemas.deliveries.Attempted`. `response`: first bytes of it.

    `retry_after`: that header's value, as it came.
    """

    status: int | None
    error: str | None
    response: bytes
    retry_after: str | None = None


class _Content(aiohttp.BytesPayload):
    """A request's body. aiohttp keeps the head back until it is written."""

    def __init__(self, value: bytes, may_write: Callable[[], None]) -> None:
        super().__init__(value)
        self._may_write = may_write

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._may_write()
        await super().write_with_length(writer, content_length)


class Sender:
    """The one HTTP client of a worker: no cookies, no proxy or credentials from the environment, answers taken as they come.

    Open while the `async with` lasts. Making one raises `OSError` for certificate authorities that cannot be read.
    """

    def __init__(self, settings: Settings, lookup: Lookup = system_lookup, *, may_write: Callable[[], None] = lambda: None) -> None:
        """`may_write` is called right before the first byte of a request is written, and raises, or ends the process, where none may be:
        looking up a name, connecting and waiting for the loop take long enough to be replaced meanwhile."""
        self._settings = settings.delivery
        self._may_write = may_write
        self._rules = egress.rules(settings)
        self._deadlines = Deadlines()
        self._read_url = lru_cache(_URLS_MAX)(lambda url: egress.read_url(url, self._rules))
        self._context = tls_context(self._settings.egress_ca_file)
        self._guard = Guard(self._rules)
        self._resolver = Resolver(self._guard, self._settings.dns_timeout_s, lookup)
        proxy = self._settings.egress_proxy
        self._proxy = None if proxy is None else URL(proxy.get_secret_value())

    async def __aenter__(self) -> Self:
        # A proxy is the only host that is connected to then, found by the system's resolver: it usually has a private address.
        guard, resolver = (self._guard, self._resolver) if self._proxy is None else (None, None)
        self._client = aiohttp.ClientSession(
            connector=Connector(guard, resolver, self._context, _HEAD_BYTES_MAX + self._settings.response_bytes_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            # One deadline around everything; here only what one address may take of it.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s, sock_read=None),
            read_bufsize=_READ_BYTES,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            max_headers=_HEADERS_MAX,
            proxy=self._proxy,
            headers={"User-Agent": "triggers-webhooks/1", "Accept-Encoding": "identity", "Accept": "*/*"},
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def post(self, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float | None = None) -> Result:
        """Every way it can end is a `Result`; only cancellation raises. `timeout_s`: total deadline, by default that of the settings."""
        try:
            target = self._read_url(url)
        except ValueError as error:  # registered under other rules
            return _denied(None, error)
        try:
            limit_s = self._settings.attempt_timeout_s if timeout_s is None else timeout_s
            with Within(self._deadlines, asyncio.get_running_loop().time() + limit_s):
                named: dict[str, Any] = {}
                if self._proxy is not None:
                    target, headers, named = await self._by_address(target, headers)
                body = _Content(content, self._may_write)
                async with self._client.post(target, data=body, headers=headers, allow_redirects=False, **named) as answer:
                    kept = await self._read(answer)
                    status, retry_after = answer.status, answer.headers.get("Retry-After")
            return Result(status, None if 200 <= status <= 299 else "status", kept, retry_after)
        except TimeoutError:
            return Result(None, "timeout", b"")
        except EgressDenied as error:
            return _denied(target.host, error)
        except (aiohttp.ClientConnectorDNSError, socket.gaierror) as error:
            return Result(None, LOCAL if is_ours(error) else "dns", b"")
        except (aiohttp.ClientSSLError, ssl.SSLError):
            return Result(None, "tls", b"")
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
            return Result(None, LOCAL if is_ours(error) else "connect", b"")
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
            # TLS 1.3 refuses a client, for one without a certificate, only after the handshake.
            return Result(None, "tls" if isinstance(error.__cause__, ssl.SSLError) else "reset", b"")
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return Result(None, LOCAL if is_ours(error) else "protocol", b"")

    async def _by_address(self, target: URL, headers: Mapping[str, str]) -> tuple[URL, Mapping[str, str], dict[str, Any]]:
        """The same request in terms of a checked address, for a proxy that would look the name up again. TLS and Host keep the name.

        Raises `EgressDenied`, `OSError`.
        """
        host, port = target.raw_host or "", target.port or 0  # `read_url` refuses what has none
        if (address := egress.literal(host)) is not None:
            self._guard.check(address, port)
            return target, headers, {}
        address = (await self._resolver.addresses(host, port))[0]
        named = {"server_hostname": host} if target.scheme == "https" else {}
        return target.with_host(str(address)), {**headers, "Host": target.host_port_subcomponent or host}, named

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The first bytes of the body. One that goes on past the limit is cut off with its connection."""
        kept, size = b"", 0
        while part := await answer.content.read(_READ_BYTES):
            size += len(part)
            if len(kept) < self._settings.response_bytes_kept:
                kept += part[: self._settings.response_bytes_kept - len(kept)]
            if size > self._settings.response_bytes_max:
                answer.close()
                break
        return kept


def _denied(host: str | None, error: Exception) -> Result:
    """The journal, which customers read, gets the class alone: what a name stands for inside our network is for the operator's log."""
    log.warning("egress.denied", host=host, reason=str(error))
    return Result(None, "egress", b"")
