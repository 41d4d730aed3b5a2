from __future__ import annotations

import asyncio

import pytest

from schemas.problems import REGISTRY
from tests.unit.ingest.api import HEADERS, Api


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.mark.parametrize("path", ["/events", "/health"])
async def test_another_method_is_405_and_names_those_there_are(path: str, api: Api) -> None:
    answer = await api.call("DELETE", path)
    assert (answer.status, answer.headers["allow"]) == (405, "POST" if path == "/events" else "GET")


@pytest.mark.parametrize("path", ["/nothing", "/events/", "/Events", "//events"])
async def test_an_unknown_path_is_404_and_never_a_redirect(path: str, api: Api) -> None:
    assert (await api.call("POST", path, [*HEADERS, (b"host", b"elsewhere.example")])).status == 404


async def test_too_much_in_path_and_headers_is_431(api: Api) -> None:
    for path in ("/events", "/health"):
        fits = await api.call("POST" if path == "/events" else "GET", path, [*HEADERS, (b"x-big", b"x" * 16_000)], [b"{}"])
        assert fits.status in (200, 422)
        answer = await api.call("GET", path, [*HEADERS, (b"x-big", b"x" * 16_384)])
        assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert (await api.call("GET", "/" + "x" * 16_384)).status == 431


async def test_readiness_names_each_server_and_asks_at_most_once_a_second(api: Api) -> None:
    api.probes["redis"] = False
    answer = await api.call("GET", "/health/ready")
    assert (answer.status, answer.body["status"]) == (200, "degraded")
    assert answer.body["dependencies"] == {"kafka": "ok", "postgres": "ok", "redis": "down"}
    await asyncio.gather(*(api.call("GET", "/health/ready") for _ in range(20)))
    assert api.asked == 3


@pytest.mark.parametrize("server", ["kafka", "postgres"])
async def test_without_kafka_or_postgres_it_is_not_ready_but_lives(server: str, api: Api) -> None:
    api.probes[server] = False
    answer = await api.call("GET", "/health/ready")
    assert (answer.status, answer.body["status"], answer.body["dependencies"][server]) == (503, "unavailable", "down")
    assert (await api.call("GET", "/health")).status == 200


async def test_openapi_shows_post_events_with_an_example_for_every_answer(api: Api) -> None:
    operation = (await api.call("GET", "/openapi.json")).body["paths"]["/events"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["example"]
    shown = set()
    for status, response in operation["responses"].items():
        content = next(iter(response["content"].values()))
        assert content.get("example") or content.get("examples"), status
        shown |= set(content.get("examples", ()))
    assert shown <= set(REGISTRY)
    assert {
        "malformed-json", "invalid-header", "missing-api-key", "invalid-api-key", "forbidden", "request-timeout", "duplicate-event",
        "request-in-flight", "body-too-large", "payload-too-large", "unsupported-media-type", "invalid-event", "idempotency-key-reused",
        "headers-too-large", "internal", "not-appended", "outcome-unknown", "unavailable",
    } <= shown  # fmt: skip
