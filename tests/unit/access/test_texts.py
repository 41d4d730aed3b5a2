from __future__ import annotations

import pytest

from access.texts import one_line


@pytest.mark.parametrize("text", ["a", "Ærø & Søn", "日本", "x" * 10])
def test_a_printable_line_is_kept(text: str) -> None:
    assert one_line("name", text, chars_max=10) == text


@pytest.mark.parametrize("text", ["", "x" * 11, "a\nb", "a\x00", "\x1b[31m", "\u202eabc", "\udcff"])
def test_a_text_that_could_not_be_stored_or_shown_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the name must have 1 to 10 printable characters$"):
        one_line("name", text, chars_max=10)


def test_an_empty_text_is_fine_where_it_may_be() -> None:
    assert one_line("description", "", chars_min=0, chars_max=10) == ""
