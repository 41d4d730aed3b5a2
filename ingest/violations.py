"""Where a payload does not match its schema. Looked for only after the validator has said that it does not; never echoes values.

jsonschema-rs lists all errors at once, with a copy of each value: 4 million errors and 5 GB for a payload of 60 kB were measured. So the
places are sought from here, one at a time, with a validator for each part of the schema, and the search ends at its limits. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from jsonschema_rs import ValidatorMap

from access.json_schemas import compile_part
from access.schema_walk import IN_PLACE_LIST, Document, pointer_of, token

VIOLATIONS_MAX: Final = 20
POINTER_CHARS_MAX: Final = 500
#: What was found by then is answered.
SEARCH_S: Final = 0.05
_TEXT_CHARS_MAX: Final = 800
_NAME_CHARS_MAX: Final = 60
_OPTIONS_SHOWN_MAX: Final = 8

#: Keywords that look at the value alone and refer to nothing, with what they ask for.
_PLAIN: Final[Mapping[str, str]] = {
    "type": "must be of type {0}",
    "enum": "must be one of {0}",
    "const": "must be {0}",
    "minimum": "must be at least {0}",
    "maximum": "must be at most {0}",
    "exclusiveMinimum": "must be more than {0}",
    "exclusiveMaximum": "must be less than {0}",
    "multipleOf": "must be a multiple of {0}",
    "minLength": "must have at least {0} characters",
    "maxLength": "must have at most {0} characters",
    "pattern": "must match the pattern {0}",
    "minItems": "must have at least {0} items",
    "maxItems": "must have at most {0} items",
    "uniqueItems": "must not hold an item twice",
    "minProperties": "must have at least {0} members",
    "maxProperties": "must have at most {0} members",
}


class Violation(NamedTuple):
    """`pointer` is a JSON Pointer (RFC 6901) into the event: `/payload/…`."""

    pointer: str
    message: str


def find(document: Document, parts: ValidatorMap, payload: Any, now_s: Callable[[], float]) -> list[Violation]:
    """1 to `VIOLATIONS_MAX`, in the order of the schema. `payload` is invalid and has its numbers exact."""
    search = _Search(document, parts, now_s)
    search.run(payload)
    return [Violation(_pointer(path), text[:_TEXT_CHARS_MAX]) for path, text in search.found] or [
        Violation("/payload", "does not match the schema; it is too large to tell where")
    ]


Path = tuple[str | int, ...]


class _Enough(Exception):
    pass


class _Search:
    def __init__(self, document: Document, parts: ValidatorMap, now_s: Callable[[], float]) -> None:
        self._document = document
        self._parts = parts
        self._now_s = now_s
        self._until_s = now_s() + SEARCH_S
        self._inside: list[tuple[str, Any, Path]] = []
        self._said = 0
        self.found: dict[tuple[Path, str], None] = {}

    def run(self, payload: Any) -> None:
        waiting: list[tuple[str, Any, Path]] = [("", payload, ())]
        with suppress(_Enough):
            while waiting:  # not by calls within calls: a payload may have more levels than Python has
                self._inside = []
                self._explain(*waiting.pop())
                waiting.extend(reversed(self._inside))

    def _explain(self, pointer: str, value: Any, path: Path) -> None:
        """Say what is wrong with `value`, which the schema at `pointer` refuses, or which parts of it or of the schema are at fault."""
        schema = self._document.nodes[pointer]
        if isinstance(schema, bool):
            self._add(path, "is not allowed here")
            return
        before = self._said
        self._plain(schema, value, path)
        if isinstance(value, dict):
            self._members(pointer, schema, value, path)
        elif isinstance(value, list):
            self._items(pointer, schema, value, path)
        self._in_place(pointer, schema, value, path)
        if self._said == before and not self._inside:
            named = [k for k in ("contains", "unevaluatedProperties", "unevaluatedItems", "propertyNames") if k in schema]
            self._add(path, f"does not match {' or '.join(f'`{k}`' for k in named) or 'the schema'}")

    def _look(self, pointer: str, value: Any, path: Path) -> None:
        """Go on at a part later, if it is refused."""
        if not self._valid(pointer, value):
            self._inside.append((pointer, value, path))

    def _valid(self, pointer: str, value: Any) -> bool:
        if self._now_s() > self._until_s:
            raise _Enough
        return self._parts["#" + pointer].is_valid(value)

    def _add(self, path: Path, text: str) -> None:
        self._said += 1
        self.found[path, text] = None
        if len(self.found) >= VIOLATIONS_MAX:
            raise _Enough

    def _plain(self, schema: dict[str, Any], value: Any, path: Path) -> None:
        for keyword, text in _PLAIN.items():
            if keyword in schema and not compile_part({keyword: schema[keyword]}).is_valid(value):
                self._add(path, text.format(_shown(schema[keyword])))

    def _members(self, pointer: str, schema: dict[str, Any], value: dict[str, Any], path: Path) -> None:
        for name in schema.get("required", ()):
            if name not in value:
                self._add(path, f"must have the member {_shown(name)}")
        for present, needed in schema.get("dependentRequired", {}).items():
            for name in needed:
                if present in value and name not in value:
                    self._add(path, f"must have the member {_shown(name)}, because it has {_shown(present)}")
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in properties:
            if name in value:
                self._look(f"{pointer}/properties/{token(name)}", value[name], (*path, name))
        matching = {pattern: compile_part({"pattern": pattern}) for pattern in patterns}
        for name, part in value.items():
            covered = name in properties
            for pattern, validator in matching.items():
                if validator.is_valid(name):
                    covered = True
                    self._look(f"{pointer}/patternProperties/{token(pattern)}", part, (*path, name))
            if not covered and "additionalProperties" in schema:
                self._look(f"{pointer}/additionalProperties", part, (*path, name))
            if "propertyNames" in schema and not self._valid(f"{pointer}/propertyNames", name):
                self._add((*path, name), "has a name that is not allowed")

    def _items(self, pointer: str, schema: dict[str, Any], value: list[Any], path: Path) -> None:
        first = len(schema.get("prefixItems", ()))
        for index, part in enumerate(value):
            if index < first:
                self._look(f"{pointer}/prefixItems/{index}", part, (*path, index))
            elif "items" in schema:
                self._look(f"{pointer}/items", part, (*path, index))

    def _in_place(self, pointer: str, schema: dict[str, Any], value: Any, path: Path) -> None:
        if "$ref" in schema:
            self._look(self._document.target(schema["$ref"]), value, path)
        for keyword in IN_PLACE_LIST:
            branches = [f"{pointer}/{keyword}/{index}" for index in range(len(schema.get(keyword, ())))]
            if keyword == "allOf" or len(branches) == 1:
                for branch in branches:
                    self._look(branch, value, path)
            elif branches:
                self._alternatives(keyword, branches, value, path)
        if "not" in schema and self._valid(f"{pointer}/not", value):
            self._add(path, "must not match what `not` in the schema describes")
        if "if" in schema:
            chosen = "then" if self._valid(f"{pointer}/if", value) else "else"
            if chosen in schema:
                self._look(f"{pointer}/{chosen}", value, path)
        if isinstance(value, dict):
            for name in schema.get("dependentSchemas", ()):
                if name in value:
                    self._look(f"{pointer}/dependentSchemas/{token(name)}", value, path)

    def _alternatives(self, keyword: str, branches: list[str], value: Any, path: Path) -> None:
        matching = sum(self._valid(branch, value) for branch in branches)
        if not matching:
            self._add(path, f"matches none of the {len(branches)} alternatives")
        elif keyword == "oneOf" and matching > 1:
            self._add(path, f"matches {matching} of the {len(branches)} alternatives, and may match only one")


def _pointer(path: Path) -> str:
    """Cut where it would be too long to read; what is left still leads to the right part of the payload."""
    made = "/payload"
    for part in path:
        step = pointer_of([part])
        if len(made) + len(step) > POINTER_CHARS_MAX:
            break
        made += step
    return made


def _shown(wanted: Any) -> str:
    """What a schema asks for, short. Only ever a part of the schema, never of a payload."""
    if isinstance(wanted, list):
        shown = ", ".join(_parts_of(wanted))
        return f"{shown} …" if len(wanted) > _OPTIONS_SHOWN_MAX else shown
    if isinstance(wanted, bool) or wanted is None:
        return {True: "true", False: "false", None: "null"}[wanted]
    if isinstance(wanted, dict):
        return "an object as the schema has it"
    text = str(wanted)
    return text if len(text) <= _NAME_CHARS_MAX else text[:_NAME_CHARS_MAX] + "…"


def _parts_of(listed: list[Any]) -> Iterator[str]:
    for one in listed[:_OPTIONS_SHOWN_MAX]:
        yield "an array as the schema has it" if isinstance(one, list) else _shown(one)
