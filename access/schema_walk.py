"""The shape of a JSON Schema document (2020-12): where its subschemas are, and what a reference inside it means. Pure.

References leave the document nowhere: there is no retrieval, so what does not resolve here is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

Schema = dict[str, Any] | bool

#: Keywords that hold one subschema, a list of them, or a map to them. The first groups apply to the same value, the others to its parts.
IN_PLACE_ONE: Final = ("not", "if", "then", "else")
IN_PLACE_LIST: Final = ("allOf", "anyOf", "oneOf")
IN_PLACE_MAP: Final = ("dependentSchemas",)
CHILD_ONE: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems", "contains")
CHILD_LIST: Final = ("prefixItems",)
CHILD_MAP: Final = ("properties", "patternProperties")
DEFINITIONS: Final = ("$defs",)


class SchemaError(ValueError):
    """A schema that cannot be taken. `pointer` is the JSON Pointer (RFC 6901) of the place at fault, empty for the whole document."""

    def __init__(self, what: str, pointer: str = "") -> None:
        super().__init__(f"{what} (at {pointer})" if pointer else what)
        self.what = what
        self.pointer = pointer


def token(part: str | int) -> str:
    """One reference token of a JSON Pointer (RFC 6901 section 3)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def pointer_of(parts: Sequence[str | int], start: str = "") -> str:
    return start + "".join("/" + token(part) for part in parts)


def subschemas(node: Mapping[str, Any], pointer: str) -> Iterator[tuple[str, Any]]:
    """(pointer, subschema) of everything that is a schema by its place directly under `node`."""
    for keyword in (*IN_PLACE_ONE, *CHILD_ONE):
        if keyword in node:
            yield f"{pointer}/{keyword}", node[keyword]
    for keyword in (*IN_PLACE_LIST, *CHILD_LIST):
        if isinstance(listed := node.get(keyword), list):
            for index, one in enumerate(listed):
                yield f"{pointer}/{keyword}/{index}", one
    for keyword in (*IN_PLACE_MAP, *CHILD_MAP, *DEFINITIONS):
        if isinstance(mapped := node.get(keyword), dict):
            for name, one in mapped.items():
                yield f"{pointer}/{keyword}/{token(name)}", one


class Document:
    """A schema document and its reachable subschemas by pointer. Raises `SchemaError` for a reference that leads nowhere."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.nodes: dict[str, Schema] = {}
        self._anchors: dict[str, str] = {}
        waiting: list[tuple[str, Any]] = [("", root)]
        references: list[tuple[str, str]] = []
        while waiting or references:
            while waiting:
                pointer, node = waiting.pop()
                if pointer in self.nodes:
                    continue
                if not isinstance(node, dict | bool):
                    raise SchemaError("a schema must be an object, true or false", pointer)
                self.nodes[pointer] = node
                if isinstance(node, bool):
                    continue
                if isinstance(anchor := node.get("$anchor"), str):
                    self._anchors[anchor] = pointer
                waiting.extend(subschemas(node, pointer))
                if "$ref" in node:
                    references.append((pointer, node["$ref"]))
            # Anchors are known by now, except those that only a reference to an unusual place leads to.
            while references:
                pointer, reference = references.pop()
                target = self.target(reference, pointer)
                waiting.append((target, self._find(target, pointer)))

    def target(self, reference: Any, pointer: str = "") -> str:
        """The pointer a `$ref` leads to."""
        at = f"{pointer}/$ref"
        if not isinstance(reference, str):
            raise SchemaError("`$ref` must be a string", at)
        if not reference.startswith("#"):
            raise SchemaError("`$ref` may only point into this document (`#/…`): copy what it names into `$defs`", at)
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise SchemaError("`$ref` names an `$anchor` that is not in this document", at)
            return self._anchors[fragment]
        return fragment

    def resolve(self, reference: str) -> tuple[str, Schema]:
        """(pointer, schema) of a `$ref` in this document."""
        target = self.target(reference)
        return target, self.nodes[target]

    def _find(self, target: str, pointer: str) -> Any:
        found: Any = self.root
        for part in target.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and name.isascii() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise SchemaError("`$ref` points to a place that is not in this document", f"{pointer}/$ref")
        return found
