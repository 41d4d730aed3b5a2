"""What surrounds every answer: headers that make browsers careful, and CORS where origins are named. Plain ASGI, a microsecond each.

Refuses to look into requests: that is the protocol's (below) and the routes' (above).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, cast

from starlette.middleware.cors import CORSMiddleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_API_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
_CORS_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CORS_REQUEST_HEADERS: Final = (
    "X-API-Key", "Idempotency-Key", "Content-Type", "Last-Event-ID", "X-Request-Id", "traceparent",
    "ce-id", "ce-source", "ce-specversion", "ce-type", "ce-subject", "ce-time", "ce-dataschema", "ce-datacontenttype",
)  # fmt: skip
_CORS_EXPOSED: Final = ("Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id")
_CORS_MAX_AGE_S: Final = 600
_SOURCE: Final = re.compile(r"<(script|link)[^>]+(?:src|href)=\"(https?://[^/\"]+)")
_INLINE: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def security_headers(hsts_max_age_s: int) -> tuple[tuple[bytes, bytes], ...]:
    """What every answer carries unless it says something else itself: nothing sniffed, framed, kept or told to other sites."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", _API_POLICY),
    ]
    if hsts_max_age_s:
        headers.append((b"strict-transport-security", b"max-age=%d; includeSubDomains" % hsts_max_age_s))
    return tuple(headers)


class SecurityHeaders:
    """Adds `headers` to every answer that has not its own of that name; `policies` are the content security policies of single paths."""

    def __init__(self, app: App, headers: Sequence[tuple[bytes, bytes]], policies: Mapping[str, bytes] | None = None) -> None:
        self._app = app
        self._headers = tuple(headers)
        self._names = frozenset(name for name, _ in self._headers)
        self._policies = {
            path: tuple((name, policy if name == b"content-security-policy" else value) for name, value in headers)
            for path, policy in (policies or {}).items()
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        added = self._policies.get(scope["path"], self._headers) if self._policies else self._headers
        names = self._names

        def carefully(message: MutableMapping[str, Any]) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                named = {name for name, _ in own}
                message["headers"] = [*own, *(added if named.isdisjoint(names) else [header for header in added if header[0] not in named])]
            return send(message)

        return self._app(scope, receive, carefully)


def with_cors(app: App, origins: Sequence[str]) -> App:
    """`app` for pages of these origins as well; itself if there are none. No credentials: the API key is a header, never a cookie."""
    if not origins:
        return app
    return cast(
        App,
        CORSMiddleware(
            cast(Any, app),
            allow_origins=origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_EXPOSED,
            max_age=_CORS_MAX_AGE_S,
        ),
    )


def page_policy(html: str) -> bytes:
    """The content security policy under which exactly this page works: the sites it names, its own inline scripts by their hash."""
    sites: dict[str, set[str]] = {"script": set(), "link": set()}
    for tag, site in _SOURCE.findall(html):
        sites[tag].add(site)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in _INLINE.findall(html)}
    scripts, styles = " ".join(sorted(sites["script"] | hashes)), " ".join(sorted(sites["link"]))
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline' {styles}; img-src 'self' data: {styles}; "
        "connect-src 'self'; frame-ancestors 'none'"
    ).encode()
