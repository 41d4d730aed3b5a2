from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.strict import EXPONENT_MAX, MEMBERS_MAX, NESTING_MAX, NUMBER_CHARS_MAX, NotStrict, check

#: Valid JSON values that this system takes, as text with everything JSON allows: whitespace, escapes, any number in range.
NUMBERS = st.one_of(st.integers().filter(lambda n: abs(n) < 10**308), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXTS, inner, max_size=5)),
    max_leaves=30,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 3]))
def test_whatever_means_one_thing_is_taken(value: Any, ascii_only: bool, indent: int | None) -> None:
    check(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())


def meaning(text: bytes) -> list[Any]:
    """What a lax parser makes of it, every member of every object kept; raises as `json` does."""
    seen: list[Any] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen.append([name for name, _ in pairs])
        return dict(pairs)

    def constant(name: str) -> None:
        raise ValueError(name)

    seen.append(json.loads(text.decode(), object_pairs_hook=members, parse_constant=constant))
    return seen


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [b"{", b"}", b"[", b"]", b":", b",", b'"', b'"a"', b'"\\u0061"', b'"\\u0000"', b'"\\ud83d\\ude00"', b"\\ud800",
                 b"\\", b"\\\\", b"1", b"-", b"0", b"1e5", b"1e400", b"9" * 400, b"NaN", b"true", b" ", b"\xff", b"\xed\xa0\x80",
                 b"\x00", b"\n", b"/*", b"'"]
            ),
            max_size=14,
        ).map(b"".join),
    )
)  # fmt: skip
def test_what_passes_is_json_with_one_meaning_for_every_parser(text: bytes) -> None:
    try:
        check(text)
    except NotStrict as error:
        assert error.detail
        return
    *objects, value = meaning(text)
    assert all(len(set(names)) == len(names) for names in objects)
    again = json.dumps(value, ensure_ascii=False)
    again.encode()  # no surrogates
    assert "\\u0000" not in again
    assert not any(isinstance(n, float) and not math.isfinite(n) for n in _leaves(value))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "malformed"),
        (b" \n", "malformed"),
        (b"{} x", "malformed"),
        (b"{}{}", "malformed"),
        (b"{}//", "malformed"),
        (b"{'a':1}", "malformed"),
        (b"[1,]", "malformed"),
        (b"NaN", "malformed"),
        (b"[-Infinity]", "malformed"),
        (b'"\x01"', "malformed"),
        (b'"\x00"', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        ("{}".encode("utf-16"), "malformed"),
        ("{}".encode("utf-32"), "malformed"),
        (b'"\xff"', "malformed"),
        (b'"\xc0\xaf"', "malformed"),
        (b'"\xf5\x80\x80\x80"', "malformed"),
        (b'"\xe2\x82', "malformed"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'[{"b":{"a":1,"\\u0061":2}}]', "duplicate_key"),
        (b'"\\u0000"', "nul_character"),
        (b'{"a\\u0000":1}', "nul_character"),
        (b'"\\ud800"', "lone_surrogate"),
        (b'"\\uDC00"', "lone_surrogate"),
        (b'"\\udc00\\ud800"', "lone_surrogate"),
        (b'"\\ud800\\ud83d\\ude00"', "lone_surrogate"),
        (b'"\\ud800x\\udc00"', "lone_surrogate"),
        (b'["\\ud800","\\udc00"]', "lone_surrogate"),
        (b'"\xed\xa0\x80"', "lone_surrogate"),
        (b"[1e131071]", "number_out_of_range"),
        (b"[1E+0000309]", "number_out_of_range"),
        (b"[-1e-325]", "number_out_of_range"),
        (b"[12e308]", "number_out_of_range"),
        (b"9" * 309, "number_out_of_range"),
        (b"9" * 5_000, "number_out_of_range"),
        (b"0." + b"0" * NUMBER_CHARS_MAX, "number_out_of_range"),
        (b"1e" + b"0" * NUMBER_CHARS_MAX + b"1", "number_out_of_range"),
        (b"[" + b",".join([b'{"a":1}'] * (MEMBERS_MAX + 1)) + b"]", "too_many_members"),
        (b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1), "too_deep"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "too_deep"),
        (b"[" * 100_000, "too_deep"),
    ],
)
def test_what_parsers_differ_in_is_refused_with_its_reason(text: bytes, reason: str) -> None:
    with pytest.raises(NotStrict) as caught:
        check(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        b'"\\\\u0000"',
        b'"\\\\\\\\ud800"',
        b'"\\ud83d\\ude00"',
        '"\uffff \u202e \u200b 👩‍👩‍👧 \u2028"'.encode(),
        b'{"__proto__":1,"constructor":{"$ref":"x"},"a":"{{7*7}} ${jndi:x} \'; DROP TABLE"}',
        b"[9223372036854775807,9223372036854775808,18446744073709551616,-9223372036854775809,9007199254740993]",
        b"1e%d" % EXPONENT_MAX,
        b"[5e-324,1.7976931348623157e308]",
        b'"1e999999"',
        b'["' + b"9" * 5_000 + b'"]',
        b"9" * 308,
        b"0." + b"0" * (NUMBER_CHARS_MAX - 2),
        b"[" * NESTING_MAX + b"]" * NESTING_MAX,
        b'["' + b":" * (2 * MEMBERS_MAX) + b'"]',
        b"[" + b",".join([b'{"a":1}'] * MEMBERS_MAX) + b"]",
    ],
)
def test_what_only_looks_dangerous_is_taken(text: bytes) -> None:
    check(text)


def test_levels_around_the_value_in_question_are_not_counted() -> None:
    deepest = b'{"payload":' + b"[" * NESTING_MAX + b"]" * NESTING_MAX + b"}"
    check(deepest, around=1)
    with pytest.raises(NotStrict):
        check(deepest)
