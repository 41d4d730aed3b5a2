from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from runtime.settings import ApiSettings, Settings
from tests.unit.ingest.api import HEADERS, Api, slug


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.mark.parametrize("path", ["/events", "/events/batch", "/health"])
@pytest.mark.parametrize("method", ["DELETE", "OPTIONS"])
async def test_another_method_is_405_and_names_those_there_are(method: str, path: str, api: Api) -> None:
    answer = await api.call(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD" if path == "/health" else "POST")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_batch_is_no_event_that_could_be_read(method: str, api: Api) -> None:
    answer = await api.call(method, "/events/batch")
    assert (answer.status, answer.headers["allow"], answer.headers["content-type"]) == (405, "POST", "application/problem+json")


@pytest.mark.parametrize("path", ["/nothing", "/events/", "/Events", "//events"])
async def test_an_unknown_path_is_404_and_never_a_redirect(path: str, api: Api) -> None:
    assert (await api.call("POST", path, [*HEADERS, (b"host", b"elsewhere.example")])).status == 404


@pytest.mark.parametrize("path", ["/health", "/nothing", "/events"])
async def test_head_is_get_without_a_body(path: str, api: Api) -> None:
    got, head = await api.call("GET", path), await api.call("HEAD", path)
    assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"])
    assert head.size == 0
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_head_of_a_stream_ends_with_its_headers(api: Api) -> None:
    answer = await asyncio.wait_for(api.call("HEAD", "/endless"), 5)
    assert (answer.status, answer.size) == (200, 0)


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


async def test_a_server_that_is_being_replaced_is_named_so(api: Api) -> None:
    api.probes["kafka"] = "rebuilding"
    answer = await api.call("GET", "/health/ready")
    assert (answer.status, answer.body["status"], answer.body["dependencies"]["kafka"]) == (503, "unavailable", "rebuilding")


async def test_draining_is_said_at_once_and_whatever_the_servers_say(api: Api) -> None:
    assert (await api.call("GET", "/health/ready")).status == 200
    api.app.readiness.drain()
    answer = await api.call("GET", "/health/ready")
    assert (answer.status, answer.body["status"]) == (503, "draining")
    assert (await api.call("GET", "/health")).status == 200
    assert (await api.post()).status == 201


async def test_without_docs_there_is_no_page_and_nobody_is_sent_there() -> None:
    api = Api(docs=False)
    assert (await api.call("GET", "/docs")).status == 404
    assert "docs" not in (await api.call("GET", "/")).body
    assert "docs" in (await Api().call("GET", "/")).body


@pytest.mark.parametrize(
    ("environment", "asked", "served"),
    [("development", None, True), ("production", None, False), ("production", True, True), ("development", False, False)],
)
def test_docs_are_off_in_production_unless_asked_for(environment: str, asked: bool | None, served: bool) -> None:
    assert Settings(environment=environment, api=ApiSettings(docs_enabled=asked)).docs_enabled is served


async def test_openapi_json_is_the_published_contract_of_this_process(api: Api) -> None:
    answer = await api.call("GET", "/openapi.json")
    assert answer.body == api.app.contract()
    assert {"/events", "/events/batch", "/health/ready"} <= set(answer.body["paths"])


async def test_a_caller_that_goes_before_its_body_is_whole_is_no_failure_of_ours(api: Api) -> None:
    with capture_logs() as logged:
        answer = await api.call("POST", "/reads", parts=())
    assert (answer.status, slug(answer)) == (400, "malformed-request")
    assert not [line for line in logged if line["log_level"] == "error"]
