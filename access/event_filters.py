"""Which events an endpoint takes: types by name, or with `*` as the last part for everything below. Pure.

`order.*` takes `order.paid` and `order.paid.late`, not `order`. `*` alone takes all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from schemas.events import EVENT_TYPE_CHARS_MAX, EVENT_TYPE_PATTERN, RESERVED_TYPES, is_reserved

FILTERS_MAX: Final = 100
_ALL: Final = "*"
_BELOW: Final = ".*"
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN)
#: What one filter may be, for the published contract; `check_event_types` says it to people.
FILTER_PATTERN: Final = r"^(\*|" + EVENT_TYPE_PATTERN[1:-1] + r"(\.\*)?)$"


def check_event_types(filters: Sequence[str]) -> tuple[str, ...]:
    """Filters that some event can match, each once. Raises `ValueError`: an endpoint for any other would wait for ever."""
    if len(filters) > FILTERS_MAX:
        raise ValueError(f"an endpoint takes at most {FILTERS_MAX} event types by name: use order.* for all below order, or none for all")
    for given in filters:
        name = given.removesuffix(_BELOW)
        if given != _ALL and (len(given) > EVENT_TYPE_CHARS_MAX or not _TYPE.fullmatch(name)):
            raise ValueError(
                f"{given[:EVENT_TYPE_CHARS_MAX]!r} is no event type: use letters, digits, _ and - in parts joined by dots, "
                "like order.created, with * only as the last part, like order.*"
            )
    return tuple(dict.fromkeys(filters))


def takes(filters: Sequence[str] | None, event_type: str) -> bool:
    """Whether any filter matches; None: all types."""
    return filters is None or any(_matches(given, event_type) for given in filters)


def delivers(filters: Sequence[str] | None, event_type: str) -> bool:
    """Whether an endpoint with these filters gets such an event: `takes`, but operational ones only where asked for by name."""
    return takes(filters, event_type) and (not is_reserved(event_type) or asked_for(filters, event_type))


def asked_for(filters: Sequence[str] | None, event_type: str) -> bool:
    """Whether an endpoint asks for this operational event by name: neither no filter nor `*` does."""
    return takes([one for one in filters or () if one.startswith(RESERVED_TYPES)], event_type)


def _matches(given: str, event_type: str) -> bool:
    if given == _ALL:
        return True
    if given.endswith(_BELOW):
        return event_type.startswith(given[:-1])
    return given == event_type
