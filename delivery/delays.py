"""Delay topics: a fixed set composes every schedule, and no record waits in one longer than its own delay. Pure; times in Unix ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_MEMORY_SHARE: Final = 0.8


def choose(delays_s: Sequence[float], remaining_ms: int) -> float:
    """The delay topic (its delay in seconds) a task goes to next: the largest that fits what remains, else the smallest."""
    fitting = [delay for delay in delays_s if delay * 1000 <= remaining_ms]
    return max(fitting) if fitting else min(delays_s)


def due_ms(not_before_ms: int, appended_at_ms: int, delay_s: float) -> int:
    """When a record at the head of a delay topic is taken: when its task is due, or when it has waited the topic's delay."""
    return min(not_before_ms, appended_at_ms + round(delay_s * 1000))


def for_parking(delays_s: Sequence[float], journal_memory_s: float) -> tuple[float, ...]:
    """The delay topics that work goes through which was put off without an attempt.

    The task has the number of the attempt it put off. If another life of the owner made that attempt all the same, the record of it must
    still be remembered when the task comes back, so it stays on no topic for longer than four fifths of the journal's memory.
    """
    return tuple(delay for delay in delays_s if delay <= _MEMORY_SHARE * journal_memory_s) or (min(delays_s),)
