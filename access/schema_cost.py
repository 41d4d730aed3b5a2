"""How often a schema may look at one place of a payload. A schema is code that a tenant runs on our processor, so it has a budget.

Without one, 30 lines suffice to keep a process busy for years: `allOf` with the same reference twice, whose target does so again. Measured
with jsonschema-rs 0.60: 2 to the power of the levels, and 2.6 to theirs under `unevaluatedProperties`.

The count follows every kind of path into a payload: which schemas apply to the whole of it, which to each name that one of them tells apart
and to all other names, and so on down. What it cannot tell is counted too high, never too low. Pure.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from access.schema_walk import IN_PLACE_LIST, IN_PLACE_ONE, Document, Schema, SchemaError, token

#: Checks at one place of a payload. A check takes about 10 ns, a payload of 256 KiB has at most 130,000 places.
CHECKS_MAX: Final = 1_000
#: Steps of the count itself: about half a second.
_STEPS_MAX: Final = 150_000
#: A keyword that asks what its neighbours have looked at makes them look again (measured: 2.6 times).
_UNEVALUATED_FACTOR: Final = 3
#: Reference targets of a recursion that are tried for the one which all of it passes through.
_HUBS_TRIED_MAX: Final = 50
_NAMES: Final = "."
_INDICES: Final = "["


@dataclass
class _Node:
    weight: int
    in_place: list[tuple[str, int]] = field(default_factory=list)
    #: What applies to every part, whatever its name; what applies where nothing named does; what applies to one name or index.
    always: list[str] = field(default_factory=list)
    otherwise: list[tuple[str, str]] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    def targets(self) -> Iterator[str]:
        yield from (target for target, _ in self.in_place)
        yield from self.always
        yield from (target for _, target in self.otherwise)
        yield from self.named.values()


def checks_at_one_place(document: Document) -> int:
    """The most there are. Raises `SchemaError` for a schema that is too expensive, or too intricate to tell."""
    nodes = {pointer: _node(document, pointer, schema) for pointer, schema in document.nodes.items()}
    rank = {pointer: number for number, pointer in enumerate(_in_place_order(nodes))}
    memoized = _memoized(nodes, {document.resolve(s["$ref"])[0] for s in document.nodes.values() if isinstance(s, dict) and "$ref" in s})
    waiting: list[Counter[str]] = [Counter({"": 1})]
    seen = {frozenset(waiting[0].items())}
    worst = steps = 0
    while waiting:
        applied, checks = _spread(nodes, rank, memoized, waiting.pop())
        worst, steps = max(worst, checks), steps + len(applied)
        if worst > CHECKS_MAX or steps > _STEPS_MAX:
            raise SchemaError(
                f"the schema may look at one place of a payload more than {CHECKS_MAX} times: use fewer or smaller `allOf`, `anyOf`, "
                "`oneOf`, `required` and `enum`, do not refer to the same definition from several of them, and where a schema refers to "
                "itself let each part of a value be covered once"
            )
        for below in _descend(nodes, applied):
            steps += len(below)
            key = frozenset(below.items())
            if key not in seen:
                seen.add(key)
                waiting.append(below)
    return worst


def _node(document: Document, pointer: str, schema: Schema) -> _Node:
    if isinstance(schema, bool):
        return _Node(1)
    made = _Node(_weight(schema))
    factor = _UNEVALUATED_FACTOR if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
    if "$ref" in schema:
        made.in_place.append((document.resolve(schema["$ref"])[0], factor))
    for keyword in IN_PLACE_ONE:
        if keyword in schema:
            made.in_place.append((f"{pointer}/{keyword}", factor))
    for keyword in IN_PLACE_LIST:
        made.in_place += [(f"{pointer}/{keyword}/{i}", factor) for i in range(len(schema.get(keyword, ())))]
    made.in_place += [(f"{pointer}/dependentSchemas/{token(name)}", factor) for name in schema.get("dependentSchemas", ())]
    made.always += [f"{pointer}/patternProperties/{token(name)}" for name in schema.get("patternProperties", ())]
    made.always += [
        f"{pointer}/{keyword}"
        for keyword in ("contains", "unevaluatedProperties", "unevaluatedItems", "propertyNames")
        if keyword in schema
    ]
    made.named |= {f"{_NAMES}{name}": f"{pointer}/properties/{token(name)}" for name in schema.get("properties", ())}
    made.named |= {f"{_INDICES}{i}": f"{pointer}/prefixItems/{i}" for i in range(len(schema.get("prefixItems", ())))}
    if "additionalProperties" in schema:
        made.otherwise.append((_NAMES, f"{pointer}/additionalProperties"))
    if "items" in schema:
        made.otherwise.append((_INDICES, f"{pointer}/items"))
    return made


def _weight(schema: dict[str, Any]) -> int:
    """Checks of a schema's own keywords: each 1, and 1 for each thing that one compares with."""
    weight = len(schema)
    weight += len(schema.get("required", ())) + len(schema.get("patternProperties", ()))
    options = schema.get("enum", ())
    if not all(isinstance(option, str) for option in options):  # an enum of texts alone is looked up, any other compared one by one
        weight += len(options)
    return weight + sum(1 + len(names) for names in schema.get("dependentRequired", {}).values())


def _in_place_order(nodes: dict[str, _Node]) -> list[str]:
    """Every node before those it applies to the same value. Raises `SchemaError` where that goes in circles."""
    waiting = Counter(target for node in nodes.values() for target, _ in node.in_place)
    ready = [pointer for pointer in nodes if not waiting[pointer]]
    order = []
    while ready:
        pointer = ready.pop()
        order.append(pointer)
        for target, _ in nodes[pointer].in_place:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if len(order) < len(nodes):
        at = min(pointer for pointer, count in waiting.items() if count > 0)
        raise SchemaError("a schema refers to itself without going into the value: it would never end", at)
    return order


def _spread(nodes: dict[str, _Node], rank: dict[str, int], memoized: frozenset[str], applied: Counter[str]) -> tuple[Counter[str], int]:
    """All that is applied to a value to which `applied` is, and how many checks these are."""
    counts, checks = Counter(applied), 0
    heap = [(rank[pointer], pointer) for pointer in counts]
    heapq.heapify(heap)
    while heap and checks <= CHECKS_MAX:
        _, pointer = heapq.heappop(heap)
        count = counts[pointer]
        checks += count
        if pointer in memoized:
            counts[pointer] = count = 1
        checks += count * nodes[pointer].weight
        for target, factor in nodes[pointer].in_place:
            if target not in counts:
                heapq.heappush(heap, (rank[target], target))
            counts[target] += count * factor
    return counts, checks


def _descend(nodes: dict[str, _Node], applied: Counter[str]) -> Iterator[Counter[str]]:
    """What is applied to a part of the value: for each name or index that a schema tells apart, and for all others."""
    common: dict[str, Counter[str]] = {_NAMES: Counter(), _INDICES: Counter()}
    by_name: dict[str, Counter[str]] = {}
    for pointer, count in applied.items():
        node = nodes[pointer]
        for target in node.always:
            common[_NAMES][target] += count
            common[_INDICES][target] += count
        for kind, target in node.otherwise:
            common[kind][target] += count
        for name, target in node.named.items():
            change = by_name.setdefault(name, Counter())
            change[target] += count
            for kind, replaced in node.otherwise:
                if name.startswith(kind):
                    change[replaced] -= count
    for counts in common.values():
        if counts:
            yield counts
    for name, change in by_name.items():
        counts = Counter(common[name[0]])
        for target, difference in change.items():
            counts[target] += difference
        yield +counts


def _memoized(nodes: dict[str, _Node], referred: set[str]) -> frozenset[str]:
    """Targets of recursion whose result jsonschema-rs remembers for a place: of each knot the one that every circle of it passes through.

    A knot without one is counted in full, because which of its members are remembered depends on where the compiler came in.
    """
    found = []
    for knot in _knots(nodes):
        for hub in sorted(knot & referred)[:_HUBS_TRIED_MAX]:
            if not _circular(nodes, knot - {hub}):
                found.append(hub)
                break
    return frozenset(found)


def _circular(nodes: dict[str, _Node], among: set[str]) -> bool:
    waiting = Counter(target for pointer in among for target in nodes[pointer].targets() if target in among)
    ready = [pointer for pointer in among if not waiting[pointer]]
    done = 0
    while ready:
        done += 1
        for target in nodes[ready.pop()].targets():
            if target in among:
                waiting[target] -= 1
                if not waiting[target]:
                    ready.append(target)
    return done < len(among)


def _knots(nodes: dict[str, _Node]) -> list[set[str]]:
    """Sets of schemas that lead back to each other (strongly connected; Kosaraju's algorithm, without recursion)."""
    finished: list[str] = []
    seen: set[str] = set()
    backwards: dict[str, list[str]] = {pointer: [] for pointer in nodes}
    for start, node in nodes.items():
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in seen:
            seen.add(start)
            stack.append((start, node.targets()))
        while stack:
            pointer, targets = stack[-1]
            for target in targets:
                backwards[target].append(pointer)
                if target not in seen:
                    seen.add(target)
                    stack.append((target, nodes[target].targets()))
                    break
            else:
                finished.append(pointer)
                stack.pop()
    knots, taken = [], set[str]()
    for start in reversed(finished):
        knot, waiting = set[str](), [start]
        while waiting:
            pointer = waiting.pop()
            if pointer not in taken:
                taken.add(pointer)
                knot.add(pointer)
                waiting.extend(backwards[pointer])
        if len(knot) > 1 or (knot and start in nodes[start].targets()):
            knots.append(knot)
    return knots
