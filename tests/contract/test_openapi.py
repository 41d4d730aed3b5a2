"""The published contract: the file is what the program says, and nothing in it contradicts itself."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from schemas.problems import REGISTRY
from tests.contract_document import PATH, Operation, operations, published, resolved, validator
from triggers.contract import contract
from triggers.system import argv

EVERY = [pytest.param(one, id=f"{one.method} {one.path}") for one in operations()]


def test_the_file_is_what_the_api_is() -> None:
    assert contract() == PATH.read_text(), "The HTTP API and docs/openapi.json differ: run `make openapi` and look at what changed."


def test_the_command_writes_the_same_without_any_server(tmp_path: Any) -> None:
    environment = {**os.environ, "TRIGGERS_POSTGRES__DSN": "postgresql://nobody@127.0.0.1:1/none", "TRIGGERS_ENVIRONMENT": "production"}
    subprocess.run(argv("openapi", "--output", str(tmp_path / "made.json")), env=environment, check=True, timeout=60)
    assert (tmp_path / "made.json").read_text() == PATH.read_text()


def test_every_problem_is_documented_somewhere() -> None:
    shown = {slug for one in operations() for response in one.document["responses"].values() for slug in _problems(response)}
    shown |= {slug for response in published()["components"]["responses"].values() for slug in _problems(response)}
    assert shown == set(REGISTRY)


@pytest.mark.parametrize("operation", EVERY)
def test_every_operation_says_who_may_call_it_and_what_its_parameters_are(operation: Operation) -> None:
    document = operation.document
    assert document["summary"]
    assert document["operationId"]
    schemes = {name for one in document.get("security", ()) for name in one}
    expected = set() if document["tags"] == ["about"] else {"operator"} if document["tags"] == ["operators"] else {"apiKey"}
    assert schemes == expected
    assert schemes <= set(published()["components"]["securitySchemes"])
    for parameter in document.get("parameters", ()):
        assert parameter.get("description"), parameter["name"]


@pytest.mark.parametrize("operation", EVERY)
def test_every_example_is_valid_under_its_own_schema(operation: Operation) -> None:
    bodies = [("body", operation.document["requestBody"])] if "requestBody" in operation.document else []
    answers = [(status, response) for status, response in operation.document["responses"].items()]
    for place, holder in [*bodies, *answers]:
        if place == "204":
            assert "content" not in holder
            continue
        for media_type, content in holder["content"].items():
            assert content["examples"], (place, media_type)
            for name, reference in content["examples"].items():
                example = resolved(reference)["value"]
                errors = [error.message for error in validator(content["schema"], strict=True).iter_errors(example)]
                assert not errors, (place, media_type, name, errors)
                if media_type == "application/problem+json":
                    assert example["status"] == int(place)
        for name, header in holder.get("headers", {}).items():
            one = resolved(header)
            assert validator(one["schema"]).is_valid(one["example"]), name


def _problems(response: dict[str, Any]) -> list[str]:
    return list(response.get("content", {}).get("application/problem+json", {}).get("examples", ()))
