"""The faults, by name. Each returns when the fault is over; whether the system got over it is checked at the end."""

from __future__ import annotations

import time

from tests.chaos.rig import SESSION_S, Fault, Rig

#: Places at which a process is killed with -9 (see `runtime.crashpoints`), with the process each is in.
PLACES: dict[str, str] = {
    "dedup.after_put": "dedup",
    "dedup.after_send": "dedup",
    "dedup.after_write": "dedup",
    "dedup.before_commit": "dedup",
    "project.in_transaction": "project",
    "project.after_commit": "project",
    "api.after_reserve": "api",
    "api.after_append": "api",
    "api.after_confirm": "api",
    "delivery.after_plan": "delivery",
    "delivery.after_post": "delivery",
    "delivery.after_journal": "delivery",
    "delivery.after_park": "delivery",
    "delivery.before_commit": "delivery",
}


def _placed(place: str) -> Fault:
    return lambda rig: rig.crash_at(PLACES[place], place, 3 if place.startswith("delivery") else 2)


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
        rig.system.supervisor.stop(second)

    return fault


def _stands_still(name: str) -> Fault:
    """With a second worker to take over: the one that stood still wakes up as a zombie."""

    def fault(rig: Rig) -> None:
        second = rig.second_worker(name)
        rig.progress(10)
        rig.stand_still(name, SESSION_S + 4)
        rig.progress(10)
        rig.stand_still(second, SESSION_S + 4)
        rig.progress(10)
        rig.system.supervisor.stop(second)

    return fault


def stop_broker_for_a_while(rig: Rig) -> None:
    rig.stack.kafka.pause()
    time.sleep(4)  # the fault itself, not a wait for something
    rig.stack.kafka.resume()


FAULTS: dict[str, Fault] = {
    **{place: _placed(place) for place in PLACES},
    "postgres": kill_postgres,
    "redis": kill_redis,
    "broker": kill_broker,
    "everything": kill_everything,
    "broker stands still": stop_broker_for_a_while,
    **{f"two {name} workers": _second_joins_and_leaves(name) for name in ("dedup", "project", "delivery")},
    **{f"{name} stands still": _stands_still(name) for name in ("dedup", "project", "delivery")},
}
