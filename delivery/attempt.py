"""One POST to one endpoint. Never retries, never follows a redirect, never takes longer than its deadline or more than its bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp

from delivery.ours import is_ours
from delivery.policy import LOCAL
from runtime.settings import DeliverySettings

#: Connections to one host and in all; the semaphores of the worker are the real bound.
_CONNECTIONS_PER_HOST_MAX: Final = 64
_DNS_CACHE_S: Final = 10
_READ_BYTES: Final = 16_384


class Result(NamedTuple):
    """`status` is None when no answer came; then `error` is a class of `schemas.deliveries.Attempted`. `response`: first bytes of it.

    `retry_after`: that header's value, as it came.
    """

    status: int | None
    error: str | None
    response: bytes
    retry_after: str | None = None


def session(settings: DeliverySettings) -> aiohttp.ClientSession:
    """The one session of a worker: no cookies, no proxy or credentials from the environment, answers taken as they come."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=settings.concurrency + settings.slow_concurrency, limit_per_host=_CONNECTIONS_PER_HOST_MAX, ttl_dns_cache=_DNS_CACHE_S
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),  # one deadline around everything instead
        headers={"User-Agent": "triggers-webhooks/1", "Accept-Encoding": "identity", "Accept": "*/*"},
    )


async def post(
    client: aiohttp.ClientSession, settings: DeliverySettings, url: str, content: bytes, headers: Mapping[str, str], deadline_s: float
) -> Result:
    """Every way it can end within the deadline is a `Result`; only cancellation raises."""
    if not settings.allow_insecure_endpoints and not url.startswith("https://"):
        return Result(None, "egress", b"")
    try:
        async with asyncio.timeout(deadline_s):
            async with client.post(url, data=content, headers=headers, allow_redirects=False) as answer:
                kept = await _read(answer, settings)
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        return Result(status, None if 200 <= status <= 299 else "status", kept, retry_after)
    except TimeoutError:
        return Result(None, "timeout", b"")
    except aiohttp.ClientConnectorDNSError as error:
        return Result(None, LOCAL if is_ours(error) else "dns", b"")
    except (aiohttp.ClientSSLError, ssl.SSLError):
        return Result(None, "tls", b"")
    except aiohttp.ClientConnectorError as error:
        return Result(None, LOCAL if is_ours(error) else "connect", b"")
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
        return Result(None, "reset", b"")
    except (aiohttp.ClientError, ValueError, OSError) as error:
        return Result(None, LOCAL if is_ours(error) else "protocol", b"")


async def _read(answer: aiohttp.ClientResponse, settings: DeliverySettings) -> bytes:
    """The first bytes of the body. One that goes on past the limit is cut off with its connection."""
    kept, size = b"", 0
    while part := await answer.content.read(_READ_BYTES):
        size += len(part)
        if len(kept) < settings.response_bytes_kept:
            kept += part[: settings.response_bytes_kept - len(kept)]
        if size > settings.response_bytes_max:
            answer.close()
            break
    return kept
