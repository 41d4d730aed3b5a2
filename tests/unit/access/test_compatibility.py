from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from access import compatibility
from access.compatibility import WARNINGS_MAX
from access.json_schemas import compile_schema, parse

Schema = Any


def warned(old: Schema, new: Schema) -> list[tuple[str, str]]:
    def document(schema: Schema) -> Any:
        return parse(schema if isinstance(schema, bytes) else json.dumps(schema).encode())

    return [(one.pointer, one.change) for one in compatibility.changes(document(old), document(new))]


@pytest.mark.parametrize(
    ("old", "new", "pointer", "says"),
    [
        ({}, {"required": ["a"]}, "/required", "now required: a"),
        ({"type": ["string", "null"]}, {"type": "string"}, "/type", "no longer allowed: null"),
        ({"type": "number"}, {"type": "integer"}, "/type", "not integers"),
        ({}, {"type": "integer"}, "/type", "no longer allowed"),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, "/enum", "1 of the values allowed before is gone"),
        ({"type": "string"}, {"enum": ["a"]}, "/enum", "only the values listed"),
        ({"const": 1}, {"const": True}, "/const", "gone"),
        ({"minimum": 1}, {"minimum": 2}, "/minimum", "raised"),
        ({}, {"exclusiveMaximum": 2}, "/exclusiveMaximum", "added"),
        (b'{"maximum":9007199254740993}', b'{"maximum":9007199254740992}', "/maximum", "lowered"),
        (b'{"maximum":0.1000000000000000000001}', b'{"maximum":0.1}', "/maximum", "lowered"),
        ({"multipleOf": 3}, {"multipleOf": 6}, "/multipleOf", "multiples"),
        ({}, {"additionalProperties": False}, "/additionalProperties", "no value is allowed"),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"additionalProperties": False}, "/additionalProperties", "no value"),
        ({}, {"properties": {"a/b": {"pattern": "^x"}}}, "/properties/a~1b/pattern", "added"),
        ({"pattern": "a"}, {"pattern": "b"}, "/pattern", "changed"),
        ({}, {"uniqueItems": True}, "/uniqueItems", "differ"),
        ({"items": {"type": "string"}}, {"prefixItems": [{"type": "null"}]}, "/prefixItems/0/type", "no longer allowed: string"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}]}, "/anyOf", "removed"),
        ({"oneOf": [{"type": "string"}]}, {"oneOf": [{"type": "string"}, {"minLength": 2}]}, "/oneOf", "`oneOf` changed"),
        ({}, {"not": {"type": "string"}}, "/not", "changed"),
        ({}, {"if": {"type": "string"}, "then": {"minLength": 1}}, "/if", "`if`, `then` changed"),
        ({"contains": {}, "minContains": 1}, {"contains": {}, "minContains": 2}, "/contains", "changed"),
        ({}, {"propertyNames": {"maxLength": 3}}, "/propertyNames/maxLength", "added"),
        ({}, {"dependentRequired": {"a": ["b"]}}, "/dependentRequired/a", "now required with it: b"),
        ({"properties": {}}, {"unevaluatedProperties": False}, "/unevaluatedProperties", "any other change"),
        (
            {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}},
            {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"minLength": 2}}},
            "/$defs/a/minLength",
            "added",
        ),
        (
            {"oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}},
            {"oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "null"}}},
            "/oneOf",
            "changed",
        ),
    ],
)
def test_a_change_that_may_refuse_what_was_valid_is_told_with_its_place(old: Schema, new: Schema, pointer: str, says: str) -> None:
    found = warned(old, new)
    assert [change for at, change in found if at == pointer and says in change], found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"required": ["a", "b"]}, {"required": ["a"]}),
        ({"type": "integer"}, {"type": ["number", "string"]}),
        ({"type": "string"}, {"type": "string", "title": "x", "format": "email", "description": "y", "default": 3}),
        ({"enum": [1, "a"]}, {"enum": ["a", 1.0, None]}),
        ({"minimum": 2, "maxLength": 5}, {"minimum": 1, "maxLength": 6, "minItems": 0}),
        ({"multipleOf": 0.02}, {"multipleOf": 0.01}),
        ({"additionalProperties": False}, {"properties": {"a": {"type": "string"}}}),
        ({"properties": {"a": {"type": "string"}}, "additionalProperties": False}, {"additionalProperties": True}),
        ({"not": {"type": "string"}, "anyOf": [{}]}, {}),
        ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ({"prefixItems": [{"type": "string"}]}, {"items": {"minLength": 0}}),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"minLength": 3}}}, {"properties": {"a": {"minLength": 2}}}),
        ({"properties": {"a": {"minLength": 3}}}, {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"minLength": 2}}}),
        ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}),
        ({"type": "object"}, {}),
    ],
)
def test_a_change_that_refuses_nothing_is_not_warned_of(old: Schema, new: Schema) -> None:
    assert warned(old, new) == []
    assert warned(old, old) == []


def test_many_changes_are_cut_short_and_long_names_too() -> None:
    new = {"properties": {f"n{i}": {"minLength": 1} for i in range(500)}, "required": ["x" * 1_000] + [f"r{i}" for i in range(300)]}
    found = warned({}, new)
    assert len(found) == WARNINGS_MAX
    assert all(len(change) < 500 for _, change in found)


def test_two_schemas_that_refer_to_themselves_are_compared_to_an_end() -> None:
    def tree(most: int) -> Schema:
        return {"properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}, "maxProperties": most}

    assert warned(tree(2), tree(2)) == []
    assert [at for at, _ in warned(tree(2), tree(1))] == ["/maxProperties"]


NAMES = st.sampled_from(["a", "b", "ab"])
NUMBERS = st.sampled_from([-1, 0, 1, 1.5, 2, 3])
COUNTS = st.integers(0, 3)
TYPES = st.sampled_from(["null", "boolean", "object", "array", "number", "integer", "string"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "a", "b", "ab", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def keywords(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    one = {
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNTS),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
        "multipleOf": st.sampled_from([0.5, 1, 2, 3]),
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "pattern": st.sampled_from(["a", "^a", "b$"]),
        "uniqueItems": st.booleans(),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
        "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
        "properties": st.dictionaries(NAMES, inner, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["a", "^b"]), inner, max_size=2),
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        **{name: st.lists(inner, min_size=1, max_size=2) for name in ("allOf", "anyOf", "oneOf")},
        **dict.fromkeys(("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"), inner),
        **{name: st.booleans() for name in ("unevaluatedProperties", "unevaluatedItems")},
        **dict.fromkeys(("minContains", "maxContains"), COUNTS),
        "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
    }
    return st.lists(st.sampled_from(sorted(one)), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: one[name] for name in chosen})
    )


SCHEMAS = st.recursive(st.booleans() | keywords(st.booleans()), keywords, max_leaves=4)


@st.composite
def documents(draw: st.DrawFn) -> Schema:
    root: dict[str, Any] = draw(keywords(SCHEMAS))
    # Definitions refer to nothing, so that no schema refers to itself without going into the value.
    plain = SCHEMAS.filter(lambda schema: "$ref" not in json.dumps(schema))
    return {**root, "$defs": {"x": draw(plain), "y": draw(plain)}}


@st.composite
def changed(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """A schema, and the same with one place in it drawn anew; or two that have nothing in common."""
    old = draw(documents())
    if draw(st.integers(0, 4)) == 0:
        return old, draw(documents())
    new = deepcopy(old)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            places.extend((node, name) for name in node)
            for part in node.values():
                walk(part)
        elif isinstance(node, list):
            for part in node:
                walk(part)

    walk(new)
    node, name = draw(st.sampled_from(places))
    if name == "$defs" or draw(st.booleans()):
        new |= draw(keywords(SCHEMAS))
    else:
        if node is new.get("$defs"):
            node[name] = draw(st.booleans())
        else:
            node.pop(name)
    return old, new


@settings(max_examples=400, deadline=None)
@given(changed(), st.lists(VALUES, min_size=1, max_size=15))
def test_without_a_warning_what_was_valid_stays_valid(pair: tuple[Schema, Schema], values: list[Any]) -> None:
    try:
        before, after = (compile_schema(json.dumps(schema).encode()) for schema in pair)
        found = warned(*pair)
    except ValueError:
        return  # the change made something that is no schema
    note(f"warned of: {found}")
    if not found:
        assert [value for value in values if before.is_valid(value) and not after.is_valid(value)] == []
