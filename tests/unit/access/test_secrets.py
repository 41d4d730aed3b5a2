from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.secrets import Keyring, KeyringError


def setting(*keys: tuple[str, int]) -> str:
    return ",".join(f"{key_id}:{base64.b64encode(bytes([byte]) * 32).decode()}" for key_id, byte in keys)


OLD = Keyring.from_setting(setting(("old", 1)))
BOTH = Keyring.from_setting(setting(("new", 2), ("old", 1)))
NEW = Keyring.from_setting(setting(("new", 2)))
OWNER, OTHER = b"ep_1", b"ep_2"


@given(st.binary(max_size=100))
def test_a_secret_opens_again_for_its_owner(plain: bytes) -> None:
    key_id, sealed = OLD.encrypt(plain, OWNER)
    assert OLD.decrypt(key_id, sealed, OWNER) == plain
    assert plain == b"" or len(plain) < 4 or plain not in sealed


def test_the_same_secret_is_never_sealed_to_the_same_bytes_twice() -> None:
    assert len({OLD.encrypt(b"secret", OWNER)[1] for _ in range(100)}) == 100


def test_a_secret_copied_to_another_owner_does_not_open() -> None:
    key_id, sealed = OLD.encrypt(b"secret", OWNER)
    with pytest.raises(KeyringError, match="belongs to another owner"):
        OLD.decrypt(key_id, sealed, OTHER)


@pytest.mark.parametrize("place", [0, 11, 12, 20, -1])
def test_one_changed_bit_anywhere_is_noticed(place: int) -> None:
    key_id, sealed = OLD.encrypt(b"secret-secret", OWNER)
    altered = bytearray(sealed)
    altered[place] ^= 1
    with pytest.raises(KeyringError, match="altered"):
        OLD.decrypt(key_id, bytes(altered), OWNER)


@pytest.mark.parametrize("size", [0, 11, 12, 27])
def test_a_secret_cut_short_is_an_error_of_the_keyring_too(size: int) -> None:
    key_id, sealed = OLD.encrypt(b"secret-secret", OWNER)
    with pytest.raises(KeyringError):
        OLD.decrypt(key_id, sealed[:size], OWNER)


def test_with_a_new_key_in_front_old_secrets_open_and_new_ones_use_it() -> None:
    sealed_before = OLD.encrypt(b"before", OWNER)
    assert BOTH.decrypt(*sealed_before, OWNER) == b"before"
    sealed_after = BOTH.encrypt(b"after", OWNER)
    assert sealed_after[0] == BOTH.newest == "new"
    assert NEW.decrypt(*sealed_after, OWNER) == b"after"


def test_a_dropped_key_that_is_still_needed_is_named() -> None:
    sealed = OLD.encrypt(b"before", OWNER)
    with pytest.raises(KeyringError, match=r"master key old is needed .* put it back"):
        NEW.decrypt(*sealed, OWNER)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no master key"),
        (" , ,", "there is no master key"),
        ("c2VjcmV0", "number 1 is malformed"),
        ("a:", "number 1 is malformed"),
        ("a:not base64!", "number 1 is malformed"),
        ("a:" + base64.b64encode(bytes(31)).decode(), "number 1 is malformed"),
        ("a:" + base64.b64encode(bytes(33)).decode(), "number 1 is malformed"),
        (":" + base64.b64encode(bytes(32)).decode(), "number 1 is malformed"),
        ("a b:" + base64.b64encode(bytes(32)).decode(), "number 1 is malformed"),
        (setting(("a", 1)) + ",b:c2VjcmV0", "number 2 is malformed"),
        (setting(("a", 1), ("a", 2)), "there twice"),
    ],
)
def test_a_setting_that_cannot_be_used_is_explained_without_repeating_it(text: str, says: str) -> None:
    with pytest.raises(KeyringError, match=says) as raised:
        Keyring.from_setting(text)
    assert "TRIGGERS_MASTER_KEYS" in str(raised.value)
    for part in text.split(","):
        encoded = part.partition(":")[2]
        assert len(encoded) < 2 or encoded not in str(raised.value)
    assert "c2VjcmV0" not in str(raised.value)


def test_spaces_around_the_keys_and_a_trailing_comma_are_fine() -> None:
    ring = Keyring.from_setting(f" {setting(('new', 2), ('old', 1)).replace(',', ' , ')} ,")
    assert ring.newest == "new"
    assert ring.decrypt(*OLD.encrypt(b"x", OWNER), OWNER) == b"x"


def test_derived_bytes_differ_by_purpose_and_key_and_survive_a_new_key_in_front() -> None:
    assert OLD.derive(b"cursor") == OLD.derive(b"cursor") == BOTH.derive(b"cursor")
    assert len({OLD.derive(b"cursor"), OLD.derive(b"other"), NEW.derive(b"cursor"), bytes([1]) * 32}) == 4
    assert len(OLD.derive(b"cursor")) == 32


def test_a_keyring_shows_no_key_when_printed() -> None:
    assert repr(bytes([1]) * 4)[2:-1] not in repr(OLD)
