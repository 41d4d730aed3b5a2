"""What the accepted records say about the dedup table, against what its changelog holds."""

from __future__ import annotations

import pytest

from processors.dedup import Marker, decide, newer
from processors.table_rebuild import compare, corrections
from schemas import ids
from schemas.events import SCHEMA_VERSION

WINDOW_MS = 86_400_000
SINCE_MS, BELOW = 1_795_000_000_000, 50
KEY = b"org\nlive\nk:1"


def marker(offset: int, *, at_ms: int = SINCE_MS + 4_000, number: int | None = None) -> Marker:
    return Marker(SCHEMA_VERSION, 2, offset, at_ms, ids.event_id(number or offset + 1, bytes(10)), "a" * 64)


@pytest.mark.parametrize(
    ("wanted", "held", "missing", "unfounded"),
    [
        (marker(7), marker(7), False, False),
        (marker(7), None, True, False),
        (marker(7), marker(3), True, False),  # an older holder of the key, whose time was over
        (marker(7), marker(7, number=99), True, False),  # another event's name at that place
        (marker(7), marker(9), False, True),
        (None, marker(9), False, True),
        (None, marker(9, at_ms=SINCE_MS - 1), False, False),  # too old to count
        (None, marker(BELOW), False, False),  # its record is judged again
        (marker(7), marker(BELOW + 3), False, False),
        (None, None, False, False),
    ],
)
def test_what_is_missing_and_what_is_unfounded(wanted: Marker | None, held: Marker | None, missing: bool, unfounded: bool) -> None:
    found = compare({KEY: wanted} if wanted else {}, {KEY: held} if held else {}, SINCE_MS, BELOW)
    assert found.missing == ({KEY: wanted} if missing else {})
    assert found.unfounded == ({KEY: held} if unfounded else {})


@pytest.mark.parametrize("true", [None, marker(7)])
def test_what_is_put_right_wins_in_recovery_and_judges_as_the_log_does(true: Marker | None) -> None:
    wanted = {KEY: true} if true else {}
    wrong = marker(9, number=99)
    recovered = newer(wrong, corrections(wanted, {KEY: wrong})[KEY])
    for later in (marker(60), marker(60, number=8)):  # another event under the key, and the true one once more
        assert decide(recovered, later, WINDOW_MS) == decide(true, later, WINDOW_MS)
    assert decide(wrong, marker(60), WINDOW_MS) == "duplicate"
    again = compare(wanted, {KEY: recovered}, SINCE_MS, BELOW)
    assert not again.missing
    assert not again.unfounded
