from __future__ import annotations

import json
import time
from typing import Any

import pytest

from access import json_schemas
from access.json_schemas import SCHEMA_BYTES_MAX, SCHEMA_NESTING_MAX, check, compile_part, compile_schema
from access.schema_cost import CHECKS_MAX, checks_at_one_place
from access.schema_walk import SchemaError


def text(schema: Any) -> bytes:
    return schema if isinstance(schema, bytes) else json.dumps(schema).encode()


def refused(schema: Any) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        check(text(schema))
    return caught.value


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"},
        {"$id": "https://acme.example/order", "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here"}}},
        {"$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": True}},
        {"properties": {"$ref": {"type": "string"}, "required": {}, "$dynamicRef": {}}},
        {"x-ours": {"anything": [1]}, "format": "made-up"},
        b'{"maximum": 1e400, "multipleOf": 0.01}',
    ],
)
def test_a_schema_of_2020_12_that_stays_in_its_document_is_taken(schema: Any) -> None:
    check(text(schema))


@pytest.mark.parametrize(
    ("schema", "pointer", "says"),
    [
        ({"properties": {"a/b~c": {"minimum": "1"}}}, "/properties/a~1b~0c/minimum", "not valid"),
        ({"type": "text"}, "/type", "not valid"),
        ({"properties": {"a": {"$ref": "https://acme.example/a"}}}, "/properties/a/$ref", "only point into this document"),
        ({"$ref": "file:///etc/passwd"}, "/$ref", "only point into this document"),
        ({"$ref": "other.json"}, "/$ref", "only point into this document"),
        ({"$ref": "#/$defs/gone"}, "/$ref", "not in this document"),
        ({"$ref": "#gone"}, "/$ref", "not in this document"),
        ({"$ref": "#/enum/0", "enum": [3]}, "/enum/0", "must be an object"),
        ({"$ref": 3}, "/$ref", "must be a string"),
        ({"properties": {"a": {"$dynamicRef": "#a"}}}, "/properties/a/$dynamicRef", "use `$ref`"),
        ({"dependencies": {"a": ["b"]}}, "/dependencies", "dependentRequired"),
        ({"$defs": {"a": {"$id": "https://acme.example/a"}}}, "/$defs/a/$id", "only stand at the top"),
        ({"$id": "https://json-schema.org/draft/2020-12/schema"}, "/$id", "meta-schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "2020-12"),
        ({"pattern": "(?=a)"}, "/pattern", "look-around"),
        ({"pattern": r"(a)\1"}, "/pattern", "back-references"),
        ({"pattern": "a{1000}{1000}"}, "/pattern", "not too large"),
        ({"patternProperties": {"(": {}}}, "/patternProperties/(", "regular expression"),
        ({"$ref": "#"}, "", "never end"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, True]}}}, "/$defs/a", "never end"),
        (b"[]", "", "must be a JSON object"),
        (b"true", "", "must be a JSON object"),
        (b"{", "", "cannot be read as JSON"),
        (b"\xff", "", "cannot be read as JSON"),
        (b'{"maximum":NaN}', "", "NaN"),
        (b'{"maximum":' + b"9" * 5_000 + b"}", "", "cannot be read as JSON"),
        (b'{"maximum":1e99999999999999999999}', "", "cannot be read as JSON"),
        (b'{"type":"string","type":"object"}', "", "a name twice"),
        (b'{"not":' * 64 + b"{}" + b"}" * 64, "", "nested more than"),
        (b'{"not":' * 9_000, "", "nested more than"),
        (b'{"title":"' + b"x" * SCHEMA_BYTES_MAX + b'"}', "", "at most 65536"),
    ],
)
def test_what_cannot_be_a_schema_is_refused_with_the_place_and_the_way_out(schema: Any, pointer: str, says: str) -> None:
    error = refused(schema)
    assert says in str(error)
    assert error.pointer == pointer
    assert len(str(error)) < 600


def test_the_deepest_schema_is_taken() -> None:
    check(b'{"not":' * (SCHEMA_NESTING_MAX - 1) + b"{}" + b"}" * (SCHEMA_NESTING_MAX - 1))


def doubling(levels: int, keyword: str = "anyOf") -> dict[str, Any]:
    """2 to the power of `levels` checks, of one line each."""
    steps: dict[str, Any] = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{levels}": {"type": "string"}}}


def doubling_down(levels: int, last: dict[str, Any]) -> dict[str, Any]:
    """The same, a level of the payload deeper each time."""
    steps: dict[str, Any] = {f"d{i}": {"allOf": [{"properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{levels}": last}}


EXPENSIVE: dict[str, dict[str, Any]] = {
    "any of twice the same": doubling(30),
    "all of twice the same": doubling(30, "allOf"),
    "one level deeper each time": doubling_down(30, {}),
    "and round again": doubling_down(12, {"properties": {"x": {"$ref": "#/$defs/d0"}}}),
    "many at one place": {"items": {"allOf": [{"maxLength": 5}] * 1_000}},
    "a long list of numbers": {"enum": list(range(CHECKS_MAX))},
    "many required names": {"required": [f"n{i}" for i in range(CHECKS_MAX)]},
    "unevaluated in a chain": {
        "$ref": "#/$defs/d0",
        "$defs": {
            **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}], "unevaluatedProperties": False} for i in range(12)},
            "d12": {"properties": {"a": {}}},
        },
    },
}


@pytest.mark.parametrize("schema", EXPENSIVE.values(), ids=EXPENSIVE.keys())
def test_a_schema_that_would_keep_a_processor_busy_is_refused_quickly(schema: dict[str, Any]) -> None:
    began_s = time.monotonic()
    assert "more than 1000 times" in str(refused(schema))
    assert time.monotonic() - began_s < 5


EXPRESSION = {
    "$ref": "#/$defs/expression",
    "$defs": {
        "expression": {"oneOf": [{"type": "number"}, {"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/product"}]},
        **{
            name: {
                "type": "object",
                "required": ["op", "left", "right"],
                "properties": {
                    "op": {"const": name}, "left": {"$ref": "#/$defs/expression"}, "right": {"$ref": "#/$defs/expression"},
                },
            }
            for name in ("sum", "product")
        },
    },
}  # fmt: skip
CHEAP: dict[str, dict[str, Any]] = {
    "a wide object": {"properties": {f"n{i}": {"type": "object", "required": ["id"], "properties": {"id": {}}} for i in range(600)}},
    "a tree": {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}},
    "a list of lists": {"prefixItems": [{"$ref": "#"}], "items": {"$ref": "#"}},
    "expressions": EXPRESSION,
    "an extended tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {"allOf": [{"$ref": "#/$defs/base"}], "unevaluatedProperties": False},
            "base": {"properties": {"child": {"$ref": "#/$defs/node"}, "name": {"type": "string"}}},
        },
    },
    "a knot that all goes through its second member": {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"properties": {"x": {"$ref": "#/$defs/b"}}},
            "b": {"allOf": [{"items": {"$ref": "#/$defs/b"}}] * 2, "properties": {"y": {"$ref": "#/$defs/a"}}},
        },
    },
    "a long list of names": {"enum": [f"v{i}" for i in range(3_000)]},
}


@pytest.mark.parametrize("schema", CHEAP.values(), ids=CHEAP.keys())
def test_a_wide_or_recursive_schema_that_is_cheap_is_taken(schema: dict[str, Any]) -> None:
    assert checks_at_one_place(check(text(schema))) < 50


@pytest.mark.parametrize("schema", [doubling_down(6, {"properties": {"x": {"$ref": "#/$defs/d0"}}}), EXPRESSION, CHEAP["an extended tree"]])
def test_the_validator_is_as_fast_as_the_count_takes_for_granted(schema: dict[str, Any]) -> None:
    """Recursion is remembered: without that these would take longer than the sun will shine. Pins what jsonschema-rs does."""
    check(text(schema))
    validator = compile_schema(text(schema))
    leaves: list[Any] = [1, {}, "x"]
    for leaf in leaves:
        value = leaf
        for _ in range(100):
            value = {"x": value, "child": value, "op": "product", "left": value, "right": 1}
        began_s = time.monotonic()
        validator.is_valid(value)
        assert time.monotonic() - began_s < 2


def test_patterns_take_time_in_proportion_to_the_text() -> None:
    began_s = time.monotonic()
    for pattern in ("(x+x+)+y", "^(a|a)*$", "(.*)(.*)(.*)(.*)z", "^(([ab]?){60}){3}$"):
        check(text({"pattern": pattern}))
        assert not compile_part({"pattern": pattern}).is_valid("xa" * 130_000)
    assert time.monotonic() - began_s < 5


def test_nothing_is_retrieved_even_if_a_reference_gets_past_us(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("socket.socket.connect", lambda *_: asked.append(1))
    for reference in ("http://127.0.0.1:1/schema", "file:///etc/hostname"):
        with pytest.raises(SchemaError, match="disabled"):
            json_schemas.compile_schema(text({"$ref": reference}))
    assert asked == []
