from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.cursors import Position, decode, encode
from schemas.problems import ProblemError

KEY = b"k" * 32
BOUND = ("org_1", "live", "unacked", "")
POSITIONS = st.builds(Position, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(-1, 2**63 - 1))


@given(POSITIONS)
def test_a_cursor_gives_back_its_position(position: Position) -> None:
    assert decode(encode(position, KEY, *BOUND), KEY, *BOUND) == position


@given(POSITIONS, st.data())
def test_a_changed_cursor_is_refused(position: Position, data: st.DataObject) -> None:
    text = encode(position, KEY, *BOUND)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCDEFghijkl0123_-=+/ "))
    changed = text[:place] + other + text[place + 1 :]
    if changed != text:
        with pytest.raises(ProblemError):
            decode(changed, KEY, *BOUND)


@pytest.mark.parametrize(
    "bound",
    [("org_2", *BOUND[1:]), ("org_1", "test", *BOUND[2:]), (*BOUND[:2], "all", ""), (*BOUND[:3], "a.b"), ("org_1live", "", *BOUND[2:])],
)
def test_a_cursor_is_good_for_its_organization_mode_and_filter_only(bound: tuple[str, ...]) -> None:
    text = encode(Position(1, 2, 3), KEY, *BOUND)
    with pytest.raises(ProblemError):
        decode(text, KEY, *bound)
    with pytest.raises(ProblemError):
        decode(text, b"other" * 7, *BOUND)


@given(st.text(max_size=300))
def test_nonsense_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        decode(text, KEY, *BOUND)
    assert caught.value.problem.slug == "invalid-cursor"
