from __future__ import annotations

import base64
from pathlib import Path

import pytest

from triggers.devstack.redis import configuration
from triggers.devstack.server import ServerError
from triggers.devstack.stack import Secrets, Stack


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = Secrets.of(path)
    assert Secrets.of(path) == made
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_master_key_has_an_id_and_32_bytes() -> None:
    name, _, key = Secrets.make().master_keys.partition(":")
    assert name
    assert len(base64.b64decode(key, validate=True)) == 32


def test_damaged_secrets_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text("{}")
    with pytest.raises(ServerError, match="cannot be read"):
        Secrets.of(path)
    assert path.read_text() == "{}"


def test_a_stack_that_was_not_started_says_so(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with pytest.raises(ServerError, match="not started"):
        stack.settings_env()
    stack.stop()


def test_redis_keeps_nothing_and_forgets_nothing_silently() -> None:
    text = configuration(Path("/d"), 1, "secret").splitlines()
    assert 'save ""' in text
    assert "maxmemory-policy noeviction" in text
    assert "requirepass secret" in text
    assert "bind 127.0.0.1" in text
