from __future__ import annotations

from pathlib import Path

import pytest

from triggers.devstack.ports import Ports, load, save, still_good

REMEMBERED = Ports(kafka=1, kafka_controller=2, postgres=3, redis=4)


def test_ports_of_a_stack_differ() -> None:
    with pytest.raises(ValueError, match="different"):
        Ports(1, 2, 3, 1)


def test_remembered_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    save(tmp_path / "p", REMEMBERED)
    found = load(tmp_path / "p")
    assert found == REMEMBERED
    assert still_good(REMEMBERED, free=lambda _: True) == REMEMBERED


def test_only_a_taken_port_is_chosen_again() -> None:
    chosen = still_good(REMEMBERED, free=lambda port: port != 3, pick=lambda count: [30][:count])
    assert chosen == Ports(kafka=1, kafka_controller=2, postgres=30, redis=4)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kafka": "x"}', '{"kafka": 1, "kafka_controller": 1, "postgres": 1, "redis": 1}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_text(text)
    assert load(tmp_path / "p") is None
    assert load(tmp_path / "missing") is None
