"""Time limits of many short steps at the cost of a set: one timer for all steps whose limits end together, not one for each.

`asyncio.timeout` makes and drops a timer for each use; three of them were a fifth of the CPU of an event (measured). Here a limit ends up
to `GRAIN_S` late, never early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

GRAIN_S: Final = 0.05


class Step(Protocol):
    """What has a limit."""

    def expire(self) -> None:
        """Its time is over. Called at most once, and never after it has left its set."""


class Deadlines:
    """The steps under way, by the time their limit ends. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self._due: dict[int, set[Step]] = {}

    def add(self, step: Step, at_s: float) -> set[Step]:
        """`at_s`: loop time. The set to leave when the step has ended."""
        slot = int(at_s / GRAIN_S) + 1
        due = self._due.get(slot)
        if due is None:
            due = self._due[slot] = set()
            asyncio.get_running_loop().call_at(slot * GRAIN_S, self._end, slot)
        due.add(step)
        return due

    def _end(self, slot: int) -> None:
        for step in tuple(self._due.pop(slot)):
            step.expire()


class Within:
    """`with Within(deadlines, at_s, error):` cancels what is awaited inside when its time is over, and raises `error()` then.

    As `asyncio.timeout_at`: a cancellation from elsewhere stays one. `task`: the current one, for whoever has it at hand.
    """

    __slots__ = ("_at_s", "_cancelling", "_deadlines", "_due", "_error", "_expired", "_task")

    def __init__(
        self,
        deadlines: Deadlines,
        at_s: float,
        error: Callable[[], Exception] = TimeoutError,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self._deadlines = deadlines
        self._at_s = at_s
        self._error = error
        self._task = task
        self._expired = False

    def __enter__(self) -> None:
        task = self._task = self._task or asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._cancelling = task.cancelling()
        self._due = self._deadlines.add(self, self._at_s)

    def expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._due.discard(self)
        if self._expired and self._task is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error() from error
