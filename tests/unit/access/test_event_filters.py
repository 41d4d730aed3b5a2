from __future__ import annotations

import re

import pytest

from access.event_filters import FILTER_PATTERN, check_event_types, takes
from schemas.events import EVENT_TYPE_CHARS_MAX


def test_event_types_keep_their_order_and_lose_repetitions() -> None:
    assert check_event_types(["order.created", "a", "order.created"]) == ("order.created", "a")


@pytest.mark.parametrize(
    "event_type",
    ["", "not a type", "a..b", ".a", "a.", "a\n", "é", "**", "order.*.late", "*.paid", "order*", ".*", "*.", "a..*", "a" * 257],
)
def test_an_event_type_that_no_event_can_have_is_refused(event_type: str) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        check_event_types(["fine", event_type])


@pytest.mark.parametrize(
    "given", ["*", "a", "a.b", "order.*", "order.paid.*", "", "**", "order*", "*.paid", ".*", "a..*", "a\n", "a" * 257]
)
def test_the_published_form_of_a_filter_is_the_one_that_is_taken(given: str) -> None:
    published = re.fullmatch(FILTER_PATTERN, given) is not None and len(given) <= EVENT_TYPE_CHARS_MAX
    try:
        check_event_types([given])
    except ValueError:
        assert not published
    else:
        assert published


def test_an_endpoint_takes_a_bounded_number_of_event_types() -> None:
    assert len(check_event_types([f"t{number}" for number in range(100)])) == 100
    with pytest.raises(ValueError, match="at most 100"):
        check_event_types([f"t{number}" for number in range(101)])


@pytest.mark.parametrize(
    ("given", "event_type", "taken"),
    [
        ("order.paid", "order.paid", True),
        ("order.paid", "order.paid.late", False),
        ("order.*", "order.paid", True),
        ("order.*", "order.paid.late", True),
        ("order.*", "order", False),
        ("order.*", "orders.paid", False),
        ("order.*", "order-x.paid", False),
        ("order.paid.*", "order.paid.late", True),
        ("order.paid.*", "order.paid", False),
        ("*", "order", True),
        ("*", "order.paid.late", True),
    ],
)
def test_a_filter_takes_its_type_or_all_below_it(given: str, event_type: str, taken: bool) -> None:
    assert check_event_types([given]) == (given,)
    assert takes([given], event_type) is taken
    assert takes(["something.else", given], event_type) is taken


def test_without_filters_all_types_are_taken_and_with_an_empty_list_none() -> None:
    assert takes(None, "order.paid")
    assert not takes([], "order.paid")
