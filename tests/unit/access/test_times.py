from __future__ import annotations

import pytest

from access.times import iso, parse_duration_s, parse_time_ms


def test_a_time_is_written_in_utc_with_milliseconds_and_read_back() -> None:
    assert iso(1_893_456_000_250) == "2030-01-01T00:00:00.250Z"
    assert parse_time_ms("2030-01-01T00:00:00.250Z") == parse_time_ms("2030-01-01T01:00:00.25+01:00") == 1_893_456_000_250
    assert iso(None) is None


@pytest.mark.parametrize("text", ["", "2030-01-01", "2030-01-01T00:00:00", "2030-02-30T00:00:00Z", "tomorrow", "1893456000"])
def test_what_is_no_time_with_its_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must have its zone"):
        parse_time_ms(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("90d", 7_776_000), ("2w", 1_209_600)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5h", "1 d", "1d\n", "1D", "٣d", "1000000s", "1mo"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number and one of"):
        parse_duration_s(text)
