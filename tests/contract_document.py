"""The published contract as tests use it: its operations, its schemas as validators, what it says of an answer."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from jsonschema_rs import Draft202012Validator

PATH = Path(__file__).parents[1] / "docs" / "openapi.json"


class Operation(NamedTuple):
    method: str
    path: str
    document: dict[str, Any]

    def takes(self, path: str) -> bool:
        return re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", self.path), path) is not None


@cache
def published() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(PATH.read_text())
    return document


def operations() -> Iterator[Operation]:
    for path, methods in published()["paths"].items():
        for method, document in methods.items():
            yield Operation(method.upper(), path, document)


def operation_of(method: str, path: str) -> Operation:
    """The most literal of those that take a path."""
    found = [one for one in operations() if one.method == method and one.takes(path)]
    assert found, f"{method} {path} is not in the contract"
    return min(found, key=lambda one: one.path.count("{"))


def resolved(value: Any) -> Any:
    """`value`, or what it refers to."""
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        found: Any = published()
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found
    return value


def validator(schema: dict[str, Any], *, strict: bool = False) -> Draft202012Validator:
    """Formats are checked. `strict`: members that are not in the contract are errors, which for callers they are not."""
    components = copy.deepcopy(published()["components"])
    schema = copy.deepcopy(schema)
    if strict:
        _close(schema)
        _close(components["schemas"])
    return Draft202012Validator({**schema, "components": components}, validate_formats=True, offline=True)


def _close(value: Any) -> None:
    if isinstance(value, dict):
        if value.get("type") == "object" and isinstance(value.get("properties"), dict):
            value.setdefault("additionalProperties", False)
        for member in value.values():
            _close(member)
    elif isinstance(value, list):
        for item in value:
            _close(item)


def conforms(answer: httpx.Response) -> None:
    """Fails where an answer is not what the contract says of its operation: status, headers, media type, every member."""
    request = answer.request
    operation = operation_of(request.method, request.url.path)
    documented = operation.document["responses"].get(str(answer.status_code))
    where = f"{request.method} {request.url.path} → {answer.status_code}: {answer.text[:300]}"
    assert documented is not None, f"not documented: {where}"
    for name, reference in documented.get("headers", {}).items():
        header = resolved(reference)
        value = answer.headers.get(name)
        assert value is not None or not header["required"], f"no {name}: {where}"
        if value is not None:
            assert validator(header["schema"]).is_valid(value), f"{name}: {value}: {where}"
    if "content" not in documented:
        assert not answer.content, where
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], f"{media_type} is not documented: {where}"
    content = documented["content"][media_type]
    errors = [f"{error.instance_path}: {error.message}" for error in validator(content["schema"], strict=True).iter_errors(answer.json())]
    assert not errors, (where, errors)
    if media_type == "application/problem+json":
        slug = answer.json()["type"].rpartition(":")[2]
        assert slug in content["examples"], f"{slug} is not documented: {where}"
