"""Delay topics: a fixed set composes every schedule, and no record waits in one longer than its own delay. Pure; times in Unix ms."""

from __future__ import annotations

from collections.abc import Sequence


def choose(delays_s: Sequence[float], remaining_ms: int) -> float:
    """The delay topic (its delay in seconds) a task goes to next: the largest that fits what remains, else the smallest."""
    fitting = [delay for delay in delays_s if delay * 1000 <= remaining_ms]
    return max(fitting) if fitting else min(delays_s)


def due_ms(not_before_ms: int, appended_at_ms: int, delay_s: float) -> int:
    """When a record at the head of a delay topic is taken: when its task is due, or when it has waited the topic's delay."""
    return min(not_before_ms, appended_at_ms + round(delay_s * 1000))
