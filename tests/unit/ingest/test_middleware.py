from __future__ import annotations

import base64
import hashlib
import re

import pytest

from ingest.middleware import page_policy
from runtime.settings import ApiSettings
from tests.unit.ingest.api import HEADERS, Answer, Api

ORIGIN = "https://app.example"


async def called(settings: ApiSettings, method: str, path: str, *headers: tuple[bytes, bytes]) -> Answer:
    return await Api(settings).call(method, path, [*HEADERS, *headers])


@pytest.mark.parametrize("path", ["/health", "/nothing", "/breaks", "/events"])
async def test_every_answer_is_careful(path: str) -> None:
    answer = await called(ApiSettings(), "GET", path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "strict-transport-security" not in answer.headers


async def test_transport_security_is_only_promised_when_asked_for() -> None:
    answer = await called(ApiSettings(hsts_max_age_s=60), "GET", "/health")
    assert answer.headers["strict-transport-security"] == "max-age=60; includeSubDomains"


async def test_the_docs_page_may_do_what_it_does_and_no_more() -> None:
    answer = await called(ApiSettings(), "GET", "/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}' https://[a-z.]+;", policy), policy


def test_a_page_policy_names_the_sites_and_the_inline_scripts_of_the_page() -> None:
    inline = "\n  run()\n"
    page = f'<link rel="x" href="https://a.example/s.css"><script src="https://b.example/x.js"></script><script>{inline}</script>'
    policy = page_policy(page).decode()
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' https://b.example;" in policy
    assert "style-src 'unsafe-inline' https://a.example;" in policy


async def test_no_origin_is_allowed_by_default() -> None:
    asked = await called(ApiSettings(), "OPTIONS", "/events", (b"origin", ORIGIN.encode()), (b"access-control-request-method", b"POST"))
    assert asked.status == 405
    assert "access-control-allow-origin" not in (await called(ApiSettings(), "GET", "/health", (b"origin", ORIGIN.encode()))).headers


async def test_a_named_origin_may_send_what_the_api_takes_and_read_what_it_says() -> None:
    settings = ApiSettings(cors_origins=(ORIGIN,))
    preflight = await called(
        settings, "OPTIONS", "/events", (b"origin", ORIGIN.encode()), (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"x-api-key,idempotency-key,content-type,ce-id"),
    )  # fmt: skip
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in preflight.headers
    answer = await called(settings, "GET", "/health", (b"origin", ORIGIN.encode()))
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert {"Location", "Retry-After", "X-Request-Id", "RateLimit"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_another_origin_is_told_nothing() -> None:
    settings = ApiSettings(cors_origins=(ORIGIN,))
    assert "access-control-allow-origin" not in (await called(settings, "GET", "/health", (b"origin", b"https://evil.example"))).headers
