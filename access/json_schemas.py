"""Schemas of payloads: which are taken, and how they are compiled. JSON Schema 2020-12, nothing retrieved from anywhere, ever.

`format` is an annotation, as the specification has it by default (2020-12 Validation, section 7): it is not checked. Patterns run on an
engine whose time is linear in the text. Numbers keep every digit.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import jsonschema_rs
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError, ValidatorMap

from access.schema_cost import checks_at_one_place
from access.schema_walk import Document, SchemaError, pointer_of

SCHEMA_BYTES_MAX: Final = 65_536
#: Levels of arrays and objects in a schema.
SCHEMA_NESTING_MAX: Final = 64
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: Bytes a compiled pattern may take.
_PATTERN_BYTES_MAX: Final = 100_000
_MESSAGE_CHARS_MAX: Final = 300
_NO_PATTERN: Final = (
    "the pattern cannot be taken: it must be a regular expression without look-around and back-references, and not too large"
)
#: What names something elsewhere or is decided only while validating, and what later drafts dropped but the validator still knows.
_REFUSED: Final = {
    "$dynamicRef": "use `$ref`", "$dynamicAnchor": "use `$anchor` and `$ref`", "$recursiveRef": "use `$ref`",
    "$recursiveAnchor": "use `$anchor` and `$ref`", "dependencies": "use `dependentRequired` or `dependentSchemas`",
}  # fmt: skip
_OPTIONS: Final[dict[str, Any]] = {
    "pattern_options": RegexOptions(size_limit=_PATTERN_BYTES_MAX),
    "validate_formats": False,
    "offline": True,
    "mask": "the value",
}


def parse(text: bytes) -> Document:
    """The document of a stored schema or one to be taken, numbers exact. Raises `SchemaError` if it is none."""
    if len(text) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"the schema has {len(text)} bytes, at most {SCHEMA_BYTES_MAX} are taken: split the event type")
    try:
        root = json.loads(text.decode(), parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_each_name_once)
    except SchemaError:
        raise
    except RecursionError:
        raise SchemaError(f"the schema is nested more than {SCHEMA_NESTING_MAX} levels deep: use `$defs`") from None
    except (ValueError, ArithmeticError) as error:  # ArithmeticError: an exponent that no Decimal can have
        raise SchemaError(f"the schema cannot be read as JSON ({str(error)[:_MESSAGE_CHARS_MAX]})") from None
    if not isinstance(root, dict):
        raise SchemaError("the schema must be a JSON object")
    _check_nesting(root)
    return Document(root)


def check(text: bytes) -> Document:
    """A schema that may be enforced. Raises `SchemaError` saying where and what to change."""
    document = parse(text)
    for pointer, node in document.nodes.items():
        if isinstance(node, dict):
            _check_keywords(node, pointer)
    compile_schema(text)
    # After the meta-schema has passed, because the cost is counted over keywords of the right form.
    checks_at_one_place(document)
    return document


def compile_schema(text: bytes) -> Draft202012Validator:
    """Raises `SchemaError`."""
    try:
        return Draft202012Validator(text.decode(), **_OPTIONS)
    except ValidationError as error:
        what = (
            _NO_PATTERN if error.message.endswith('is not a "regex"') else f"the schema is not valid: {error.message[:_MESSAGE_CHARS_MAX]}"
        )
        raise SchemaError(what, pointer_of(error.instance_path)) from None
    except ValueError as error:
        raise SchemaError(f"the schema is not valid: {str(error)[:_MESSAGE_CHARS_MAX]}") from None


def compile_parts(text: bytes) -> ValidatorMap:
    """A validator for every subschema, by its JSON Pointer as a fragment (`#/properties/a`). For a schema that `check` has passed."""
    return jsonschema_rs.validator_map_for(text.decode(), **_OPTIONS)


def compile_part(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of keywords that refer to nothing."""
    return Draft202012Validator(schema, **_OPTIONS)


def _check_keywords(node: dict[str, Any], pointer: str) -> None:
    if node.get("$schema", DIALECT) not in (DIALECT, DIALECT + "#"):
        raise SchemaError(f"`$schema` must be {DIALECT} or absent", f"{pointer}/$schema")
    for keyword, instead in _REFUSED.items():
        if keyword in node:
            raise SchemaError(f"`{keyword}` is not taken: {instead}", f"{pointer}/{keyword}")
    if "$id" in node and (pointer or not isinstance(node["$id"], str) or node["$id"].startswith("https://json-schema.org/")):
        raise SchemaError("`$id` may only stand at the top, and may not be a meta-schema's: use `$anchor` or `#/$defs/…`", f"{pointer}/$id")


def _check_nesting(root: dict[str, Any]) -> None:
    level: list[Any] = [root]
    for _ in range(SCHEMA_NESTING_MAX):
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one) if isinstance(part, dict | list)]
        if not level:
            return
    raise SchemaError(f"the schema is nested more than {SCHEMA_NESTING_MAX} levels deep: use `$defs`")


def _no_constant(name: str) -> Any:
    raise SchemaError(f"the schema holds {name}, which is not JSON")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise SchemaError("an object in the schema has a name twice: readers would take different ones")
    return made
