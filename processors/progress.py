"""Whether a Faust app that owes work makes any progress. Faust is known to stop in silence after some rebalances; a stall ends the process.

Owing means: the app has not started yet, a rebalance or a recovery is under way, or the log holds records that were not handed to an agent
although none is working.
What an agent holds (a fold waiting for Postgres, say) is not owed: it waits for a reason, and says so.
"""

from __future__ import annotations

from typing import Any

from processors.transport import Consumer


class Progress:
    """`check` is called now and then with a monotonic time in seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: Any = None
        self._since_s: float | None = None

    def check(self, app: Any, now_s: float, *, started: bool = True) -> str | None:
        """What stands still, if something that is owed has stood still for longer than the limit, or will stand still for ever."""
        if (error := _coordination_error(app)) is not None:
            return f"aiokafka's coordination ended, so this worker takes no part in its group any more: {error!r}"
        owed, state = _owed(app) if started else "the start", _state(app)
        if owed is None or state != self._seen or self._since_s is None:
            self._seen, self._since_s = state, now_s
            return None
        if now_s - self._since_s > self._limit_s:
            return f"{owed} made no progress for {self._limit_s:g} s: {state}"
        return None


def _coordination_error(app: Any) -> BaseException | None:
    """What ended aiokafka's coordination task. Faust goes round the calls that would raise it: fetching goes on, commits and rebalances
    do not."""
    coordinator = getattr(getattr(app.consumer._thread, "_consumer", None), "_coordinator", None)
    task = getattr(coordinator, "_coordination_task", None)
    return task.exception() if task is not None and task.done() and not task.cancelled() else None


def _owed(app: Any) -> str | None:
    if app.rebalancing or app.in_recovery:
        return "a rebalance or recovery"
    consumer: Consumer = app.consumer
    for tp, expected in consumer.expected.items():
        end = consumer.end_of(tp)
        if end is not None and end > expected and not consumer.has_delivered(tp):
            return f"{tp.topic}[{tp.partition}]"
    return None


def _state(app: Any) -> tuple[Any, ...]:
    """Changes with every record recovered or delivered, and with every rebalance."""
    recovery = app.tables.recovery
    return (
        app.consumer_generation_id,
        tuple(sorted((tp.topic, tp.partition, offset) for tp, offset in app.consumer.expected.items())),
        tuple(sorted((tp.partition, offset) for tp, offset in recovery.active_offsets.items() if offset is not None)),
        tuple(sorted((tp.partition, offset) for tp, offset in recovery.active_highwaters.items() if offset is not None)),
    )
