"""By which changes of a schema an event that was valid before may no longer be. Warnings for people, never a refusal. Pure.

Conservative: a change that cannot be judged is reported. No report means that what was valid stays valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from access.schema_walk import Document, Schema, token

WARNINGS_MAX: Final = 50
#: Pairs of schemas that are looked at: what is left then counts as changed.
_PAIRS_MAX: Final = 5_000
#: References that lead to references, followed in a row.
_REFERENCES_MAX: Final = 100
#: Powers of ten up to which numbers are divided exactly.
_EXPONENT_MAX: Final = 400
_NAMES_SHOWN_MAX: Final = 5
_NAME_CHARS_MAX: Final = 60

_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_COUNTS: Final = ("minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
#: Keywords that work together; a group that is not the same as before cannot be judged.
_GROUPS: Final = (("contains", "minContains", "maxContains"), ("not",), ("if", "then", "else"), ("oneOf",))
_NEEDS: Final = {"minContains": "contains", "maxContains": "contains", "then": "if", "else": "if"}
_ANNOTATIONS: Final = frozenset({"$defs", "$anchor", "$comment", "title", "description", "examples", "default", "deprecated"})
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")


class Warned(NamedTuple):
    """A change. `pointer` is where in the new schema, as a JSON Pointer."""

    pointer: str
    change: str


class _Pair(NamedTuple):
    old: Schema
    new: Schema
    at: str


def changes(old: Document, new: Document) -> list[Warned]:
    """At most `WARNINGS_MAX`, in the order of the new schema's pointers."""
    return _Comparison(old, new).run([_Pair(old.root, new.root, "")])


class _Comparison:
    def __init__(self, old: Document, new: Document) -> None:
        self._old, self._new = old, new
        self._waiting: list[_Pair] = []
        self._found: dict[Warned, None] = {}

    def run(self, pairs: Iterable[_Pair]) -> list[Warned]:
        self._waiting = list(pairs)
        seen: set[tuple[int, int]] = set()
        while self._waiting and len(self._found) < WARNINGS_MAX:
            pair = self._waiting.pop()
            if (key := (id(pair.old), id(pair.new))) in seen:
                continue
            seen.add(key)
            if len(seen) > _PAIRS_MAX:
                self._warn("", "the schemas are too large to be compared to the end")
                break
            self._compare(pair)
        return sorted(self._found)[:WARNINGS_MAX]

    def _warn(self, at: str, change: str) -> None:
        self._found[Warned(at, change)] = None

    def _compare(self, pair: _Pair) -> None:
        old, new, at = pair
        if new is True or old is False:
            return
        if new is False:
            self._warn(at, "no value is allowed here any more")
            return
        old = self._dereferenced(old, new, at)
        if old is False:
            return
        before: dict[str, Any] = {} if old is True else old
        self._types(before, new, at)
        self._values(before, new, at)
        self._bounds(before, new, at)
        self._texts(before, new, at)
        self._names(before, new, at)
        self._properties(before, new, at)
        self._items(before, new, at)
        self._alternatives(before, new, at)
        self._opaque(before, new, at)

    def _dereferenced(self, old: Schema, new: Schema, at: str) -> Schema:
        """The old schema to compare the new one's own keywords with. What the new one refers to is compared by itself."""
        if isinstance(new, dict) and "$ref" in new:
            pointer, target = self._new.resolve(new["$ref"])
            referred = self._old.resolve(old["$ref"])[1] if isinstance(old, dict) and "$ref" in old else old
            self._waiting.append(_Pair(referred, target, pointer))
            return old
        for _ in range(_REFERENCES_MAX):
            if not isinstance(old, dict) or "$ref" not in old or set(old) - _ANNOTATIONS - {"$ref"}:
                break
            old = self._old.resolve(old["$ref"])[1]
        return old

    def _types(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        lost = _types_of(old) - _types_of(new)
        if lost == {"number"} and "integer" in _types_of(new):
            self._warn(f"{at}/type", "numbers that are not integers are no longer allowed")
        elif lost := lost - ({"integer"} if "number" in lost or "number" in _types_of(new) else set()):
            self._warn(f"{at}/type", f"no longer allowed: {', '.join(sorted(lost))}")

    def _values(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        for keyword in ("enum", "const"):
            if keyword not in new:
                continue
            allowed = {_exact(value) for value in (new["enum"] if keyword == "enum" else [new["const"]])}
            before = _options(old)
            if before is None:
                self._warn(f"{at}/{keyword}", "only the values listed are allowed now")
            elif removed := len(before - allowed):
                self._warn(f"{at}/{keyword}", f"{removed} of the values allowed before {'is' if removed == 1 else 'are'} gone")

    def _bounds(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        for keyword in _LOWER:
            if keyword in new and (keyword not in old or new[keyword] > old[keyword]) and not (keyword in _COUNTS and new[keyword] == 0):
                self._warn(f"{at}/{keyword}", "a lower bound was added" if keyword not in old else "the lower bound was raised")
        for keyword in _UPPER:
            if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
                self._warn(f"{at}/{keyword}", "an upper bound was added" if keyword not in old else "the upper bound was lowered")
        if "multipleOf" in new and not ("multipleOf" in old and _divides(new["multipleOf"], old["multipleOf"])):
            self._warn(f"{at}/multipleOf", "numbers must be multiples of another number now")
        if new.get("uniqueItems") is True and old.get("uniqueItems") is not True:
            self._warn(f"{at}/uniqueItems", "items must differ from each other now")

    def _texts(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        if "pattern" in new and new["pattern"] != old.get("pattern"):
            self._warn(f"{at}/pattern", "a pattern was changed" if "pattern" in old else "a pattern was added")

    def _names(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        if added := set(new.get("required", ())) - set(old.get("required", ())):
            self._warn(f"{at}/required", f"now required: {_shown(added)}")
        before = old.get("dependentRequired", {})
        for name, needed in new.get("dependentRequired", {}).items():
            if added := set(needed) - set(before.get(name, ())):
                self._warn(f"{at}/dependentRequired/{token(name)}", f"now required with it: {_shown(added)}")
        if "propertyNames" in new:
            self._waiting.append(_Pair(old.get("propertyNames", True), new["propertyNames"], f"{at}/propertyNames"))
        for name, schema in new.get("dependentSchemas", {}).items():
            self._waiting.append(_Pair(old.get("dependentSchemas", {}).get(name, True), schema, f"{at}/dependentSchemas/{token(name)}"))

    def _properties(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        """What was asked of each name, before and now. With patterns about, it is taken that nothing was asked before."""
        names, names_before = new.get("properties", {}), old.get("properties", {})
        patterns, patterns_before = new.get("patternProperties", {}), old.get("patternProperties", {})
        others, others_before = new.get("additionalProperties", True), old.get("additionalProperties", True)
        for name, schema in names.items():
            before = names_before.get(name, True if patterns_before else others_before)
            self._waiting.append(_Pair(before, schema, f"{at}/properties/{token(name)}"))
        for pattern, schema in patterns.items():
            self._waiting.append(_Pair(patterns_before.get(pattern, True), schema, f"{at}/patternProperties/{token(pattern)}"))
        if "additionalProperties" not in new:
            return
        for name in names_before.keys() - names.keys():
            self._waiting.append(_Pair(names_before[name], others, f"{at}/additionalProperties"))
        for pattern in patterns_before.keys() - patterns.keys():
            self._waiting.append(_Pair(patterns_before[pattern], others, f"{at}/additionalProperties"))
        self._waiting.append(_Pair(others_before, others, f"{at}/additionalProperties"))

    def _items(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        first, first_before = new.get("prefixItems", []), old.get("prefixItems", [])
        rest, rest_before = new.get("items", True), old.get("items", True)
        for index in range(max(len(first), len(first_before))):
            before = first_before[index] if index < len(first_before) else rest_before
            after, where = (first[index], f"prefixItems/{index}") if index < len(first) else (rest, "items")
            self._waiting.append(_Pair(before, after, f"{at}/{where}"))
        self._waiting.append(_Pair(rest_before, rest, f"{at}/items"))

    def _alternatives(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        before = old.get("allOf", [])
        for index, schema in enumerate(new.get("allOf", ())):
            self._waiting.append(_Pair(before[index] if index < len(before) else True, schema, f"{at}/allOf/{index}"))
        if "anyOf" not in new:
            return
        if "anyOf" not in old:
            self._warn(f"{at}/anyOf", "one of these alternatives must match now")
            return
        same = {_exact(schema): schema for schema in new["anyOf"]}
        for index, schema in enumerate(old["anyOf"]):
            if (twin := same.get(_exact(schema))) is not None:
                self._waiting.append(_Pair(schema, twin, f"{at}/anyOf"))
            elif index < len(new["anyOf"]):
                self._waiting.append(_Pair(schema, new["anyOf"][index], f"{at}/anyOf/{index}"))
            else:
                self._warn(f"{at}/anyOf", "an alternative was removed")

    def _opaque(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        for group in _GROUPS:
            present = [keyword for keyword in group if keyword in new and _NEEDS.get(keyword, keyword) in new]
            if present and not self._same({k: old.get(k) for k in group}, {k: new.get(k) for k in group}):
                self._warn(f"{at}/{present[0]}", f"{', '.join(f'`{keyword}`' for keyword in present)} changed: it may allow less")
        for keyword in _UNEVALUATED:
            if new.get(keyword, True) is not True and not self._same(old, new):
                self._warn(f"{at}/{keyword}", f"with `{keyword}` any other change here may allow less")

    def _same(self, old: Any, new: Any) -> bool:
        """Whether two schemas are equal with all they refer to."""
        waiting, seen = [(old, new)], set[tuple[int, int]]()
        while waiting:
            before, after = waiting.pop()
            if (id(before), id(after)) in seen:
                continue
            seen.add((id(before), id(after)))
            if _exact(before) != _exact(after):
                return False
            for reference in _references(after):
                try:
                    waiting.append((self._old.resolve(reference)[1], self._new.resolve(reference)[1]))
                except (KeyError, ValueError):  # text in a place that is no schema, such as `const`
                    continue
        return True


def _types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """Types that `type` allows; an integer is a number, too."""
    named = schema.get("type")
    types = _TYPES if named is None else frozenset([named] if isinstance(named, str) else named)
    return types | {"integer"} if "number" in types else types


def _options(schema: Mapping[str, Any]) -> set[Any] | None:
    found = None
    for options in ([schema["const"]] if "const" in schema else None, schema.get("enum")):
        if options is not None:
            values = {_exact(value) for value in options}
            found = values if found is None else found & values
    return found


def _exact(value: Any) -> Any:
    """A hashable stand-in: equal for values that JSON Schema takes as equal (1 and 1.0, but not 1 and true)."""
    if isinstance(value, bool) or value is None:
        return ("literal", value)
    if isinstance(value, dict):
        return ("object", frozenset((name, _exact(part)) for name, part in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_exact(part) for part in value))
    return value if isinstance(value, str) else ("number", Decimal(value).normalize() if isinstance(value, float) else value)


def _divides(divisor: Decimal | int, number: Decimal | int) -> bool:
    if any(abs(Decimal(one).adjusted()) > _EXPONENT_MAX for one in (divisor, number)):
        return False  # cannot be judged at a bearable price
    return Fraction(number) % Fraction(divisor) == 0


def _references(value: Any) -> Iterable[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(reference := one.get("$ref"), str):
                yield reference
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _shown(names: Iterable[str]) -> str:
    listed = sorted(names)
    shown = ", ".join(name if len(name) <= _NAME_CHARS_MAX else name[:_NAME_CHARS_MAX] + "…" for name in listed[:_NAMES_SHOWN_MAX])
    return shown if len(listed) <= _NAMES_SHOWN_MAX else f"{shown} and {len(listed) - _NAMES_SHOWN_MAX} more"
