"""The faults, by name. Each returns when the fault is over; whether the system got over it is checked at the end.

None may pass without having happened: a place that is never reached, a worker that never owned anything and a process that was not
standing still each end the test.
"""

from __future__ import annotations

import time
from itertools import zip_longest

from tests.chaos.rig import Fault, Rig
from triggers.system import PROCESSES, until

#: Places at which a process is killed with -9 (see `runtime.crashpoints`), with the process each is in.
PLACES: dict[str, str] = {
    "dedup.after_put": "dedup",
    "dedup.after_send": "dedup",
    "dedup.after_write": "dedup",
    "dedup.before_commit": "dedup",
    "project.in_transaction": "project",
    "project.after_commit": "project",
    "project.before_commit": "project",
    "api.after_reserve": "api",
    "api.after_append": "api",
    "api.after_confirm": "api",
    "delivery.after_plan": "delivery",
    "delivery.after_post": "delivery",
    "delivery.after_journal": "delivery",
    "delivery.after_park": "delivery",
    "delivery.before_position": "delivery",
    "delivery.before_commit": "delivery",
}


def _count(place: str) -> int:
    """Not the first time it comes there: something must be half done."""
    return 3 if place.startswith("delivery") else 2


def _placed(place: str) -> Fault:
    return lambda rig: rig.crash_at({PLACES[place]: (place, _count(place))})


def crash_rounds() -> list[Fault]:
    """As many rounds as it takes to kill every process at each of its places, one of each kind a round."""
    by_process: dict[str, list[str]] = {}
    for place, process in PLACES.items():
        by_process.setdefault(process, []).append(place)

    def fault(places: dict[str, tuple[str, int]]) -> Fault:
        return lambda rig: rig.crash_at(places)

    return [
        fault({process: (place, _count(place)) for process, place in zip(by_process, column, strict=True) if place})
        for column in zip_longest(*by_process.values())
    ]


def _kill(name: str) -> Fault:
    """At no place of ours, while it works."""

    def fault(rig: Rig) -> None:
        supervisor = rig.system.supervisor
        until(lambda: supervisor.alive(name), 20, f"{name} being alive")
        restarts = supervisor.restart_count(name)
        rig.kill(name)
        until(lambda: supervisor.restart_count(name) > restarts, 20, f"{name} being started again")

    return fault


def kill_postgres(rig: Rig) -> None:
    rig.stack.postgres.kill()
    rig.stack.postgres.bring_up()


def kill_redis(rig: Rig) -> None:
    rig.stack.redis.kill()
    rig.stack.redis.bring_up()


def kill_broker(rig: Rig) -> None:
    rig.stack.kafka.kill()
    rig.stack.kafka.bring_up()


def kill_everything(rig: Rig) -> None:
    for name in rig.system.supervisor.names():
        rig.kill(name)
    for server in rig.stack.servers:
        server.kill()
    for server in rig.stack.servers:
        server.bring_up()


def _second_joins_and_leaves(name: str) -> Fault:
    def fault(rig: Rig) -> None:
        second = rig.second_worker(name)
        rig.progress(10)
        rig.kill(name)
        rig.progress(10)
        rig.kill(second)
        rig.progress(10)
        rig.leave(name, second)

    return fault


def _stands_still(name: str) -> Fault:
    """With a second worker to take over: the one that stood still wakes up as a zombie."""

    def fault(rig: Rig) -> None:
        second = rig.second_worker(name)
        for sleeper, other in ((name, 1), (second, 0)):
            rig.progress(10)
            with rig.standing_still(sleeper):
                rig.wait_owners(name, other)
                rig.progress(10)
            rig.wait_owners(name, 0, 1)
        rig.leave(name, second)

    return fault


def stop_broker_for_a_while(rig: Rig) -> None:
    rig.stack.kafka.pause()
    time.sleep(4)  # the fault itself, not a wait for something
    rig.stack.kafka.resume()


FAULTS: dict[str, Fault] = {
    **{place: _placed(place) for place in PLACES},
    **{name: _kill(name) for name in PROCESSES},
    "postgres": kill_postgres,
    "redis": kill_redis,
    "broker": kill_broker,
    "everything": kill_everything,
    "broker stands still": stop_broker_for_a_while,
    **{f"two {name} workers": _second_joins_and_leaves(name) for name in ("dedup", "project", "delivery")},
    **{f"{name} stands still": _stands_still(name) for name in ("dedup", "project", "delivery")},
}
