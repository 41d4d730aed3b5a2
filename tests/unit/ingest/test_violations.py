from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings

from access.json_schemas import check, compile_parts, compile_schema, parse
from ingest import violations
from ingest.violations import POINTER_CHARS_MAX, VIOLATIONS_MAX, Violation
from tests.unit.access.test_compatibility import VALUES, documents


def found(schema: Any, payload: Any) -> list[tuple[str, str]]:
    text = json.dumps(schema).encode()
    check(text)
    assert not compile_schema(text).is_valid(payload)
    # Time stands still: what is found does not depend on how busy the machine is.
    return [(one.pointer, one.message) for one in violations.find(parse(text), compile_parts(text), payload, lambda: 0.0)]


@pytest.mark.parametrize(
    ("schema", "payload", "expected"),
    [
        ({"type": "object"}, 1, [("/payload", "must be of type object")]),
        ({"type": ["object", "null"]}, 1, [("/payload", "must be of type object, null")]),
        (
            {"properties": {"a/b": {"properties": {"c~d": {"items": {"type": "integer"}}}}}},
            {"a/b": {"c~d": [1, "x", 2, None]}},
            [("/payload/a~1b/c~0d/1", "must be of type integer"), ("/payload/a~1b/c~0d/3", "must be of type integer")],
        ),
        (
            {"required": ["a", "b"], "properties": {"c": {"minimum": 3, "multipleOf": 2}}},
            {"c": 1},
            [
                ("/payload", "must have the member a"),
                ("/payload", "must have the member b"),
                ("/payload/c", "must be at least 3"),
                ("/payload/c", "must be a multiple of 2"),
            ],
        ),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"a": 1, "b": 1}, [("/payload/b", "is not allowed here")]),
        ({"properties": {"": {"const": None}}}, {"": 1}, [("/payload/", "must be null")]),
        ({"enum": ["a", 1.5, None, {"x": 1}]}, "b", [("/payload", "must be one of a, 1.5, null, an object as the schema has it")]),
        (
            {"patternProperties": {"^x": {"maxLength": 1}}, "additionalProperties": False},
            {"xy": "ab"},
            [("/payload/xy", "must have at most 1 characters")],
        ),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, [("/payload/ab", "has a name that is not allowed")]),
        (
            {"prefixItems": [{"type": "null"}], "items": False},
            [1, 2],
            [("/payload/0", "must be of type null"), ("/payload/1", "is not allowed here")],
        ),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, 1, [("/payload", "matches none of the 2 alternatives")]),
        ({"oneOf": [{}, {"type": "integer"}]}, 1, [("/payload", "matches 2 of the 2 alternatives, and may match only one")]),
        ({"anyOf": [{"properties": {"a": {"type": "null"}}}]}, {"a": 1}, [("/payload/a", "must be of type null")]),
        ({"allOf": [{"type": "string"}, {"type": "string"}]}, 1, [("/payload", "must be of type string")]),
        ({"not": {"type": "integer"}}, 1, [("/payload", "must not match what `not` in the schema describes")]),
        ({"if": {"type": "integer"}, "then": {"minimum": 3}, "else": False}, 1, [("/payload", "must be at least 3")]),
        ({"if": {"type": "integer"}, "then": {"minimum": 3}, "else": False}, "x", [("/payload", "is not allowed here")]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("/payload", "must have the member b, because it has a")]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, [("/payload", "must have the member b")]),
        ({"contains": {"type": "string"}}, [1], [("/payload", "does not match `contains`")]),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"b": 1}, [("/payload", "does not match `unevaluatedProperties`")]),
        (
            {"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}, "type": "object"}}},
            {"n": {"n": {"n": 1}}},
            [("/payload/n/n/n", "must be of type object")],
        ),
    ],
)  # fmt: skip
def test_each_place_is_named_with_what_is_asked_for(schema: Any, payload: Any, expected: list[tuple[str, str]]) -> None:
    assert found(schema, payload) == expected


def test_there_are_never_too_many_and_no_value_is_repeated() -> None:
    secret = "s3cret" * 1_000
    listed = found({"items": {"type": "integer", "required": ["x"]}}, [secret] * 10_000)
    assert len(listed) == VIOLATIONS_MAX
    assert "s3cret" not in json.dumps(listed)


def test_long_names_and_long_schemas_are_cut() -> None:
    deep: dict[str, Any] = {"a": {"n" * 400: {"m" * 400: 1}}}
    schema = {"additionalProperties": {"$ref": "#"}, "type": "object"}
    (only,) = found(schema, deep)
    assert only[0] == "/payload/a/" + "n" * 400
    assert len(only[0]) <= POINTER_CHARS_MAX
    (only,) = found({"enum": ["v" * 5_000] + [f"w{'x' * 500}{i}" for i in range(100)]}, 1)
    assert len(only[1]) <= 800


def test_a_payload_that_takes_too_long_is_answered_without_a_place() -> None:
    text = b'{"items":{"type":"integer"}}'
    times = iter([0.0, *(1.0 for _ in range(10))])
    assert violations.find(parse(text), compile_parts(text), ["x"], lambda: next(times)) == [
        Violation("/payload", "does not match the schema; it is too large to tell where")
    ]


def test_the_search_ends_in_time_whatever_the_schema_and_the_payload() -> None:
    """The validator's own list of errors takes 50 seconds and 5 GB for the first of these."""
    names = [f"n{i}" for i in range(200)]
    deep: Any = 1
    for _ in range(250):
        deep = {"x": deep, "y": list(range(100))}
    for schema, payload in (
        ({"items": {"required": names}}, [{}] * 20_000),
        ({"items": {"anyOf": [{"required": names}, {"required": names}]}}, [{}] * 20_000),
        ({"type": "object", "additionalProperties": {"$ref": "#"}, "$defs": {}}, deep),
        ({"items": {"type": "string"}}, ["x"] * 100_000 + [1]),
    ):
        began_s = time.monotonic()
        assert found(schema, payload)
        assert time.monotonic() - began_s < 2


@settings(max_examples=300, deadline=None)
@given(documents(), VALUES)
def test_whatever_is_invalid_has_a_violation_at_a_place_that_is_there(schema: Any, payload: Any) -> None:
    text = json.dumps(schema).encode()
    try:
        check(text)
    except ValueError:
        return
    if compile_schema(text).is_valid(payload):
        return
    listed = violations.find(parse(text), compile_parts(text), payload, lambda: 0.0)
    assert 1 <= len(listed) <= VIOLATIONS_MAX
    for pointer, message in listed:
        assert message
        value: Any = {"payload": payload}
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
