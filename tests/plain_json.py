"""A second reader of JSON, as plain as can be: one character after the other, straight from the grammar of RFC 8259.

The reference for `schemas.strict`, which is fast because it leaves the parsing to Python's scanner and looks closer on suspicion only.
Slow, shares nothing with it but the limits, and keeps every defect of a text that is JSON instead of the first.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from schemas.strict import EXPONENT_MAX, EXPONENT_MIN, MEMBERS_MAX, NESTING_MAX, NUMBER_CHARS_MAX

_DIGITS: Final = frozenset("0123456789")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_SIMPLE: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
#: What rounds to infinity as an IEEE 754 double: halfway between the largest one and the next there would be.
_TOO_LARGE: Final = Fraction(2**1024 - 2**970)


class Malformed(Exception):
    """No JSON in UTF-8."""


class TooDeep(Exception):
    """Deeper than is looked at: what stands there is not judged."""


def defects(text: bytes, *, around: int = 0) -> set[str]:
    """The reasons (see `schemas.strict.Reason`) for which a JSON text is not taken, none if it is. Raises `Malformed` and `TooDeep`."""
    try:
        decoded = text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed from None
    if decoded.startswith("\ufeff"):
        raise Malformed
    reader = _Reader(decoded, NESTING_MAX + around)
    reader.space()
    reader.value(0)
    reader.space()
    if reader.at != len(decoded):
        raise Malformed
    if reader.members > MEMBERS_MAX:
        reader.found.add("too_many_members")
    return reader.found


class _Reader:
    def __init__(self, text: str, levels: int) -> None:
        self.text = text
        self.levels = levels
        self.at = 0
        self.members = 0
        self.found: set[str] = set()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, expected: str) -> None:
        if not self.text.startswith(expected, self.at):
            raise Malformed
        self.at += len(expected)

    def space(self) -> None:
        while self.peek() and self.peek() in " \t\n\r":
            self.at += 1

    def value(self, depth: int) -> None:
        first = self.peek()
        if first in ("{", "["):
            if depth + 1 > self.levels:
                raise TooDeep
            self.object(depth + 1) if first == "{" else self.array(depth + 1)
        elif first == '"':
            self.string()
        elif first and first in "-0123456789":
            self.number()
        else:
            for word in ("true", "false", "null"):
                if self.text.startswith(word, self.at):
                    self.at += len(word)
                    return
            raise Malformed

    def object(self, depth: int) -> None:
        self.take("{")
        self.space()
        if self.peek() == "}":
            self.take("}")
            return
        names: set[str] = set()
        while True:
            self.space()
            name = self.string()
            if name in names:
                self.found.add("duplicate_key")
            names.add(name)
            self.members += 1
            self.space()
            self.take(":")
            self.space()
            self.value(depth)
            self.space()
            if self.peek() != ",":
                break
            self.take(",")
        self.take("}")

    def array(self, depth: int) -> None:
        self.take("[")
        self.space()
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            self.space()
            self.value(depth)
            self.space()
            if self.peek() != ",":
                break
            self.take(",")
        self.take("]")

    def string(self) -> str:
        """Its value. A pair of escapes is one character, half of a pair stays what it is."""
        self.take('"')
        units: list[str] = []
        while (character := self.peek()) != '"':
            if character < " ":  # also the end of the text
                raise Malformed
            self.at += 1
            if "\ud800" <= character <= "\udfff":  # as it stands: UTF-8 has no halves, nor pairs of them
                self.found.add("lone_surrogate")
            units.append(self.escape() if character == "\\" else character)
        self.take('"')
        value = _joined(units)
        if "\0" in value:
            self.found.add("nul_character")
        if any("\ud800" <= one <= "\udfff" for one in value):
            self.found.add("lone_surrogate")
        return value

    def escape(self) -> str:
        kind = self.peek()
        self.at += 1
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        digits = self.text[self.at : self.at + 4]
        if kind != "u" or len(digits) < 4 or not _HEX.issuperset(digits):
            raise Malformed
        self.at += 4
        return chr(int(digits, 16))

    def digits(self) -> str:
        begin = self.at
        while self.peek() in _DIGITS:
            self.at += 1
        if self.at == begin:
            raise Malformed
        return self.text[begin : self.at]

    def number(self) -> None:
        begin = self.at
        if self.peek() == "-":
            self.at += 1
        whole = self.digits()
        if len(whole) > 1 and whole[0] == "0":
            raise Malformed
        fraction = exponent = ""
        if self.peek() == ".":
            self.at += 1
            fraction = self.digits()
        if self.peek() in ("e", "E"):
            self.at += 1
            sign = self.peek()
            if sign in ("+", "-"):
                self.at += 1
            exponent = sign.replace("+", "") * (sign in ("+", "-")) + self.digits()
        long = self.at - begin > NUMBER_CHARS_MAX
        if long or (exponent and not EXPONENT_MIN <= int(exponent) <= EXPONENT_MAX) or _rounds_to_infinity(whole, fraction, exponent):
            self.found.add("number_out_of_range")


def _rounds_to_infinity(whole: str, fraction: str, exponent: str) -> bool:
    return Fraction(int(whole + fraction)) * Fraction(10) ** (int(exponent or 0) - len(fraction)) >= _TOO_LARGE


def _joined(units: list[str]) -> str:
    characters: list[str] = []
    for unit in units:
        if characters and "\ud800" <= characters[-1] <= "\udbff" and "\udc00" <= unit <= "\udfff":
            high = ord(characters.pop()) - 0xD800
            characters.append(chr(0x10000 + (high << 10) + ord(unit) - 0xDC00))
        else:
            characters.append(unit)
    return "".join(characters)
