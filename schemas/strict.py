"""A strict reader of JSON: what passes means the same to every parser, and costs no reader more than its length.

RFC 8259 leaves to parsers what duplicate names, lone surrogates, huge numbers and deep nesting mean; two programs that differ there see
two different events in the same bytes. Here they are refused (as I-JSON, RFC 7493 section 2, asks). Python's own scanner does the parsing
and nothing is kept of what it builds: callers keep the bytes. Not here: what the JSON says.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from itertools import accumulate
from typing import Any, Final, Literal

Reason = Literal["malformed", "too_deep", "duplicate_key", "too_many_members", "number_out_of_range", "nul_character", "lone_surrogate"]

#: Levels of arrays and objects (RFC 8259 section 9 lets a parser set a limit). Decoders end at Python's recursion limit less their own
#: call stack, so without a limit of ours a text could pass here and be unreadable in a process that calls from deeper down.
NESTING_MAX: Final = 256
#: Members of all objects together.
MEMBERS_MAX: Final = 25_000
#: Characters of one number. Its value must also be within an IEEE 754 double (RFC 8259 section 6), its exponent that of a
#: double too: written out, `1e131071` is 131,072 digits.
NUMBER_CHARS_MAX: Final = 1_000
EXPONENT_MIN: Final = -324
EXPONENT_MAX: Final = 308

_NAME_CHARS_SHOWN: Final = 64
#: Innermost pairs are taken away this often before depth is counted: wide texts are gone by then.
_PEELED: Final = 8
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
_OPENING: Final = ord("[")
_ONE_DIGIT: Final = bytes.maketrans(b"123456789", b"000000000")
#: A number of more than `NUMBER_CHARS_MAX` characters has a run of digits at least this long: before the dot, after it, or behind the `e`.
_LONG_RUN: Final = b"0" * (NUMBER_CHARS_MAX // 3 - 2)
_LONG_INTEGER: Final = b"0" * (EXPONENT_MAX - 2)
_LONG_EXPONENT: Final = re.compile(rb"[0-9][eE][+-]?[0-9]{3}")
_SUSPECT_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


class NotStrict(ValueError):
    """Why a text is refused; `detail` is a sentence without its subject, for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def check(text: bytes, *, around: int = 0) -> None:
    """`around`: levels that hold the value in question and are not counted against its limit.

    Raises `NotStrict`; `malformed` for what is no JSON in UTF-8, the other reasons for JSON that this system does not take."""
    if text.startswith(codecs.BOM_UTF8):
        raise NotStrict("malformed", "begins with a byte order mark; send UTF-8 without one (RFC 8259 section 8.1)")
    decoded = _decode(text)
    if _deeper(text, NESTING_MAX + around):
        raise _too_deep()
    decoder = _with_numbers if _suspect_number(text) else _plain
    if text.count(b":") > MEMBERS_MAX:
        decoder = _counting(decoder.parse_float is not float)
    try:
        decoder.decode(decoded)
    except json.JSONDecodeError as error:
        raise NotStrict("malformed", f"is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    if _SUSPECT_ESCAPE.search(text):
        _check_escapes(text)


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        at = error.start
        if text[at] == 0xED and 0xA0 <= int.from_bytes(text[at + 1 : at + 2]) <= 0xBF:
            raise NotStrict("lone_surrogate", f"holds half of a surrogate pair in UTF-8 (byte {at}); encode whole characters") from None
        raise NotStrict("malformed", f"is not UTF-8 (byte {at})") from None


def _too_deep() -> NotStrict:
    return NotStrict("too_deep", f"is nested more than {NESTING_MAX} levels deep; make it flatter, or send it as a string")


def _deeper(text: bytes, levels: int) -> bool:
    """Whether JSON is nested deeper than `levels`. Linear; most texts have too few brackets to be looked at."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    outside_strings = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside_strings).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(_PEELED):
        brackets = brackets.replace(b"[]", b"")
    if brackets.count(b"[") <= levels - _PEELED:
        return False
    steps = (1 if bracket == _OPENING else -1 for bracket in brackets)
    return max(accumulate(steps)) > levels - _PEELED


def _suspect_number(text: bytes) -> bool:
    """Whether a number may be out of range. Digits in strings raise the suspicion too; then each number is looked at."""
    if _LONG_EXPONENT.search(text):
        return True
    return len(text) > len(_LONG_INTEGER) and min(_LONG_RUN, _LONG_INTEGER, key=len) in text.translate(_ONE_DIGIT)


def _check_number(text: str) -> None:
    mantissa, _, exponent = text.lower().partition("e")
    if len(text) > NUMBER_CHARS_MAX or len(exponent) > NUMBER_CHARS_MAX:
        raise NotStrict(
            "number_out_of_range", f"holds a number of {len(text)} characters, at most {NUMBER_CHARS_MAX} are taken; send a string"
        )
    if (exponent and not EXPONENT_MIN <= int(exponent) <= EXPONENT_MAX) or math.isinf(float(text)):
        shown = text if len(text) <= _NAME_CHARS_SHOWN else f"{mantissa[:_NAME_CHARS_SHOWN]}…"
        raise NotStrict("number_out_of_range", f"holds the number {shown}, which is out of the range of a double; send a string")


def _refuse_constant(name: str) -> None:
    raise NotStrict("malformed", f"holds {name}, which is not JSON; send null or a string")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    """Called for each object; what it returns stands in its place, and nothing needs it."""
    if len(pairs) > 1 and len(dict(pairs)) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        shown = json.dumps(name[:_NAME_CHARS_SHOWN])
        raise NotStrict("duplicate_key", f"has the member {shown} twice in one object; parsers differ in which one they keep")


def _check_escapes(text: bytes) -> None:
    """Escaped NUL and surrogates, in JSON that is known to be well formed: a backslash stands in strings only."""
    high_ends_at: int | None = None
    for escape in _ESCAPE.finditer(text):
        code = 0x20 if escape[1] is None else int(escape[1], 16)
        follows = high_ends_at == escape.start()
        low = 0xDC00 <= code <= 0xDFFF
        if (high_ends_at is not None and not (follows and low)) or (low and not follows):
            raise _lone()
        if code == 0:
            raise NotStrict("nul_character", "holds the character U+0000, which databases cannot keep in text; leave it out")
        high_ends_at = escape.end() if 0xD800 <= code <= 0xDBFF else None
    if high_ends_at is not None:
        raise _lone()


def _lone() -> NotStrict:
    return NotStrict("lone_surrogate", "holds half of a surrogate pair, which is no character; send the pair or leave it out")


def _number(kind: type[int] | type[float]) -> Any:
    def parse(text: str) -> float:
        _check_number(text)
        return kind(text)

    return parse


def _counting(check_numbers: bool) -> json.JSONDecoder:
    """For a text with many colons: members are counted as they come."""
    count = 0

    def unique(pairs: list[tuple[str, Any]]) -> None:
        nonlocal count
        count += len(pairs)
        if count > MEMBERS_MAX:
            raise NotStrict("too_many_members", f"has more than {MEMBERS_MAX} members in its objects; split it into several events")
        _unique(pairs)

    return _decoder(unique, check_numbers=check_numbers)


def _decoder(on_object: Any, *, check_numbers: bool) -> json.JSONDecoder:
    numbers = {"parse_int": _number(int), "parse_float": _number(float)} if check_numbers else {}
    return json.JSONDecoder(object_pairs_hook=on_object, parse_constant=_refuse_constant, **numbers)


_plain: Final = _decoder(_unique, check_numbers=False)
_with_numbers: Final = _decoder(_unique, check_numbers=True)
