"""When a failed attempt at an endpoint is made again: schedules by name, or an endpoint's own pauses. Pure; pauses in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

ScheduleName = Literal["default", "standard", "custom"]
NAMES: Final[tuple[ScheduleName, ...]] = get_args(ScheduleName)
#: The example of Standard Webhooks ("Deliverability and reliability"), as pauses after the attempt made at once.
STANDARD_S: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
PAUSES_MAX: Final = 20
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 86_400.0


def check_pauses(pauses_s: Sequence[float]) -> tuple[float, ...]:
    """An endpoint's own pauses before attempts 2, 3, … Raises `ValueError`."""
    if not 1 <= len(pauses_s) <= PAUSES_MAX or not all(PAUSE_S_MIN <= pause <= PAUSE_S_MAX for pause in pauses_s):
        raise ValueError(f"a schedule of your own has 1 to {PAUSES_MAX} pauses of {PAUSE_S_MIN:g} to {PAUSE_S_MAX:g} seconds each")
    return tuple(float(pause) for pause in pauses_s)


def resolve(name: str, own_s: Sequence[float] | None, default_s: Sequence[float]) -> tuple[float, ...]:
    """The pauses a name stands for. A name this version does not know is taken as `default`: its endpoint is delivered to all the same."""
    if name == "standard":
        return STANDARD_S
    if name == "custom" and own_s:
        return tuple(own_s)
    return tuple(default_s)
