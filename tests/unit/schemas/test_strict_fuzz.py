"""The strict reader against a plain one (`tests.plain_json`), over texts that are JSON, almost JSON, and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.strict import EXPONENT_MAX, MEMBERS_MAX, NESTING_MAX, NUMBER_CHARS_MAX
from tests.strictness import judge

CORPUS = sorted((Path(__file__).parents[2] / "fuzz" / "corpus" / "strict_reader").iterdir())
SPACE = st.text(alphabet=" \t\r\n", max_size=3)
#: Characters as a sender may write them in a string: themselves, escaped, and what is none.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=0x20),
    st.sampled_from([r"\"", r"\\", r"\/", r"\n", r"\u0061", r"\u0000", r"\ud83d\ude00", r"\ud800", r"\uDC00", r"\\u0000"]),
    st.sampled_from(["\\", "\x00", "\x1f", "a"]),
    st.integers(0, 0xFFFF).map(lambda code: f"\\u{code:04x}"),
)
STRINGS = st.lists(CHARACTERS, max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,4})?\Z", fullmatch=True),
    st.builds(
        lambda sign, zeros, digits, exponent: f"{sign}{digits}{'0' * zeros}{exponent}",
        st.sampled_from(["", "-", "+"]),
        st.sampled_from([0, 300, 306, 307, 308, NUMBER_CHARS_MAX - 2, NUMBER_CHARS_MAX, 5_000]),
        st.sampled_from(["1", "17976931348623157", "17976931348623159", "0.", "0", ""]),
        st.sampled_from(["", f"e{EXPONENT_MAX}", f"e{EXPONENT_MAX + 1}", "E-324", "e-325", "e+00000", "e131071", "e", "e" + "0" * 1_000]),
    ),
)
LEAVES = st.one_of(STRINGS, NUMBERS, st.sampled_from(["true", "false", "null", "NaN", "-Infinity", "Infinity", "undefined", "'a'", ""]))


def _composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.one_of(STRINGS, st.sampled_from(['"a"', r'"\u0061"', '"b"', "a"]))
    member = st.tuples(names, SPACE, SPACE, inner).map(lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}")
    return st.one_of(_joined("[", inner, "]"), _joined("{", member, "}"))


def _joined(begin: str, inner: st.SearchStrategy[str], end: str) -> st.SearchStrategy[str]:
    whole = st.tuples(st.lists(inner, max_size=4), SPACE, st.sampled_from([",", ",", ",", ",,", ""]))
    return whole.map(lambda found: f"{begin}{found[1]}{f'{found[1]}{found[2]}'.join(found[0])}{found[1]}{end}")


TEXTS = st.tuples(SPACE, st.recursive(LEAVES, _composed, max_leaves=12), SPACE).map("".join)


def _mutated(draw: Callable[[Any], Any]) -> bytes:
    text = bytearray(draw(TEXTS).encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb\xbf", b"//", b",", b'"', b"\\"]))
        )
    return bytes(text)


@given(st.one_of(TEXTS.map(str.encode), st.composite(_mutated)(), st.binary(max_size=80)))
@settings(max_examples=1_500, deadline=None)
@example(b"0." + b"0" * (NUMBER_CHARS_MAX - 2))
@example(b"0." + b"0" * (NUMBER_CHARS_MAX - 1))
@example(b"1e" + b"0" * (NUMBER_CHARS_MAX - 2))
@example(b"-" + b"1" * 5_000)
def test_the_reader_judges_as_a_plain_one_and_what_it_takes_is_kept_as_sent(text: bytes) -> None:
    judge(text)


@given(st.sampled_from(["[", '{"a":', '[{"a":[']), st.integers(0, 3), st.sampled_from(["1", "[]", "", '"]]"', "x"]))
@settings(max_examples=200, deadline=None)
@example("[", 0, '"' + "[" * 1_000 + '"')
def test_the_limit_of_depth_is_where_the_plain_reader_has_it(unit: str, off: int, leaf: str) -> None:
    levels = sum(unit.count(one) for one in "[{")
    times = NESTING_MAX // levels - 1 + off
    closing = "".join("]" if one == "[" else "}" for one in reversed(unit) if one in "[{")
    judge((unit * times + leaf + closing * times).encode())


@pytest.mark.parametrize("count", [MEMBERS_MAX - 1, MEMBERS_MAX, MEMBERS_MAX + 1])
def test_the_limit_of_members_is_where_the_plain_reader_has_it(count: int) -> None:
    judge(json.dumps([{"a": "::"}] * (count - 2) + [{"a": 1, "b": {}}]).encode())


@pytest.mark.parametrize("path", CORPUS, ids=[path.name for path in CORPUS])
def test_the_corpus_of_the_fuzzer_is_judged_alike(path: Path) -> None:
    judge(path.read_bytes())
