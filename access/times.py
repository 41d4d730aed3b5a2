"""Times and durations as people and scripts write them to the control plane. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

import msgspec

#: A time with its zone, as RFC 3339 writes it.
Time = Annotated[datetime, msgspec.Meta(tz=True)]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION: Final = re.compile(r"\A([0-9]{1,6})([smhdw])\Z")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def rfc3339(unix_ms: int) -> str:
    """In UTC with milliseconds."""
    second, ms = divmod(unix_ms, 1000)
    return f"{_to_the_second(second)}.{ms:03d}Z"


@lru_cache(64)
def _to_the_second(unix_s: int) -> str:
    return (_EPOCH + timedelta(seconds=unix_s)).isoformat()[: -len("+00:00")]


def iso(unix_ms: int | None) -> str | None:
    """As `rfc3339`; None stays None."""
    return None if unix_ms is None else rfc3339(unix_ms)


def unix_ms(time: datetime) -> int:
    """Unix milliseconds of a time with its zone."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def parse_time_ms(text: str) -> int:
    """Unix milliseconds of an RFC 3339 time. Raises `ValueError`."""
    try:
        return unix_ms(msgspec.convert(text, Time))
    except msgspec.ValidationError:
        raise ValueError("a time must have its zone, as in RFC 3339: 2027-01-31T00:00:00Z") from None


def parse_duration_s(text: str) -> int:
    """Seconds of a number and a unit: 30s, 15m, 24h, 90d, 2w. Raises `ValueError`."""
    found = _DURATION.match(text)
    if found is None:
        raise ValueError("a duration must be a number and one of s, m, h, d, w: 24h or 90d")
    return int(found[1]) * _UNITS_S[found[2]]
