from __future__ import annotations

from runtime.randomness import Randomness


def test_no_byte_is_handed_out_twice_and_every_answer_has_its_length() -> None:
    source = Randomness()
    taken = [source.take(length) for length in (10, 24, 12, 4_096, 10) for _ in range(300)]
    assert {len(one) for one in taken} == {10, 24, 12, 4_096}
    assert len(set(taken)) == len(taken)
