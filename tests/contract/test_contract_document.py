"""The checker is tried first: an answer that is not what the contract says is found out."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract_document import conforms, operation_of, resolved

HEADERS = {"X-Request-Id": "req_1", "Content-Type": "application/json"}


def answer(status: int, body: Any, path: str = "/health", method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={**HEADERS, **headers}, request=httpx.Request(method, f"http://api{path}"))


def problem(slug: str) -> dict[str, Any]:
    return {"type": f"urn:triggers:problem:{slug}", "title": "t", "status": 404, "detail": "d", "request_id": "req_1"}


def test_an_answer_as_documented_passes() -> None:
    conforms(answer(200, {"status": "alive"}))
    conforms(answer(404, problem("not-found"), "/events/evt_1", **{"Content-Type": "application/problem+json"}))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (answer(204, None), "not documented"),
        (answer(200, {"status": "dead"}), "status"),
        (answer(200, {}), "required"),
        (answer(200, {"status": "alive", "since": 1}), "Additional properties"),
        (answer(200, {"status": "alive"}, **{"Content-Type": "text/plain"}), "text/plain is not documented"),
        (
            answer(404, problem("duplicate-event"), "/events/evt_1", **{"Content-Type": "application/problem+json"}),
            "duplicate-event is not",
        ),
        (answer(200, {}, "/nothing"), "is not in the contract"),
        (answer(401, problem("missing-api-key"), "/inbox", **{"Content-Type": "application/problem+json"}), "no WWW-Authenticate"),
    ],
)
def test_an_answer_that_is_not_as_documented_is_found_out(bad: httpx.Response, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        conforms(bad)


def test_the_most_literal_path_is_the_operation() -> None:
    assert operation_of("POST", "/events/batch").path == "/events/batch"
    assert operation_of("GET", "/events/batch").path == "/events/{event_id}"
    assert resolved({"$ref": "#/components/schemas/Alive"})["title"] == "Alive"
