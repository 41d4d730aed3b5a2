from __future__ import annotations

import hmac
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import keys
from access.keys import KeyRow
from schemas.events import MODES, Mode
from schemas.ids import ApiKeyId, OrganizationId

RANDOM = random.Random(1).randbytes(keys.RANDOM_BYTES)
KEY = keys.generate("live", RANDOM)
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def row(name: str, hashed: bytes) -> KeyRow:
    return KeyRow(ApiKeyId(f"key_{name}"), OrganizationId("org_1"), "live", name, hashed, (), None, False, "free", None)


@given(st.sampled_from(MODES), st.binary(min_size=keys.RANDOM_BYTES, max_size=keys.RANDOM_BYTES))
def test_a_generated_key_has_64_characters_names_its_mode_and_is_well_formed(mode: Mode, chosen: bytes) -> None:
    key = keys.generate(mode, chosen)
    assert len(key) == 64
    assert key.startswith(f"zap_{mode}_")
    assert keys.well_formed(key)
    assert keys.prefix(key) == key[:12]


def test_a_key_holds_as_much_of_its_randomness_as_55_digits_can() -> None:
    number = 0
    for character in reversed(KEY.removeprefix("zap_live_")):
        number = number * 62 + ALPHABET.index(character)
    assert number == int.from_bytes(RANDOM, "big") % 62**55


def test_all_62_characters_occur_about_equally_often() -> None:
    source = random.Random(2)
    text = "".join(keys.generate("live", source.randbytes(keys.RANDOM_BYTES))[9:] for _ in range(1_000))
    counts = [text.count(character) for character in set(text)]
    assert len(counts) == 62
    assert max(counts) < 1.3 * min(counts)  # 887 each is expected, standard deviation 30


def test_too_little_randomness_makes_no_key() -> None:
    with pytest.raises(ValueError, match="64 bytes, got 63"):
        keys.generate("live", RANDOM[:-1])


@pytest.mark.parametrize(
    # RELIABILITY 4.4, rows 41 to 43.
    "text",
    [
        "",
        " ",
        KEY[:-1],
        KEY + "0",
        KEY + "\n",
        " " + KEY[:-1],
        KEY.upper(),
        KEY.replace("live", "prod"),
        KEY[:-1] + "-",
        KEY[:-1] + "\x00",
        KEY[:-1] + "é",
        KEY[:-1] + "٣",  # a digit, but not one of ours
        KEY[:-1] + "\xff",
        keys.digest(KEY).hex(),
        "0" * 10_240,
    ],
)
def test_anything_that_is_not_a_key_is_refused_by_its_form(text: str) -> None:
    assert not keys.well_formed(text)


def test_a_key_matches_its_own_hash_wherever_it_stands_among_the_candidates() -> None:
    hashed = keys.digest(KEY)
    others = [row(str(number), bytes([number]) * 32) for number in range(3)]
    for place in range(4):
        found = keys.match([*others[:place], row("mine", hashed), *others[place:]], hashed)
        assert found is not None
        assert found.name == "mine"


def test_no_candidate_matches_a_key_with_one_other_character() -> None:
    other = KEY[:-1] + ("a" if KEY[-1] != "a" else "b")
    assert keys.prefix(other) == keys.prefix(KEY)
    assert keys.match([row("mine", keys.digest(KEY))], keys.digest(other)) is None
    assert keys.match([], keys.digest(KEY)) is None


def test_every_candidate_is_compared_even_after_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    hashed = keys.digest(KEY)
    keys.match([row("mine", hashed), row("other", bytes(32))], hashed)
    assert compared == [hashed, bytes(32)]
