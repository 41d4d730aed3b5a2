from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triggers.devstack.supervisor import BACKOFF_FIRST_S, BACKOFF_MAX_S, HEALTHY_AFTER_S, Supervisor, next_backoff_s

LIMIT_S = 10.0
SLEEP = ["/bin/sleep", "60"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(told: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(told.append, stop_timeout_s=0.5)
    yield made
    made.stop()


def test_restarts_slow_down_to_a_limit() -> None:
    pauses, pause = [], 0.0
    for _ in range(7):
        pause = next_backoff_s(pause, ran_s=0.1)
        pauses.append(pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_healthy_run_makes_the_next_restart_quick_again() -> None:
    assert next_backoff_s(BACKOFF_MAX_S, HEALTHY_AFTER_S) == BACKOFF_FIRST_S


def test_a_killed_process_comes_back_visibly(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    supervisor.start("api", SLEEP, log_path=tmp_path / "log")
    killed = supervisor.kill("api")
    wait_until(lambda: supervisor.restart_count("api") == 1)
    assert told == ["[api] exited with -9, restarting in 0.5 s"]
    assert supervisor.pid("api") != killed
    assert supervisor.alive("api")


def test_a_stopped_process_stays_stopped(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    supervisor.start("api", SLEEP, log_path=tmp_path / "log")
    supervisor.stop("api")
    assert supervisor.names() == []
    assert told == []
    with pytest.raises(KeyError):
        supervisor.pid("api")


def test_all_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    for name in ("first", "second", "third"):
        log = tmp_path / name
        script = f"trap 'echo {name} >> {order}; exit 0' TERM; echo ready; while :; do /bin/sleep 0.02; done"
        supervisor.start(name, ["/bin/sh", "-c", script], log_path=log)
        wait_until(lambda log=log: log.exists() and log.read_text() == "ready\n")  # type: ignore[misc]  # a bound default is not inferred
    supervisor.stop()
    assert order.read_text().split() == ["third", "second", "first"]


def test_a_process_that_does_not_stop_is_killed_and_named(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    supervisor.start("deaf", ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do /bin/sleep 0.02; done"], log_path=log)
    wait_until(lambda: log.read_text() == "ready\n")
    supervisor.stop()
    assert told == ["[deaf] did not stop within 0.5 s and was killed"]


def test_stopping_does_not_wait_for_a_pending_restart(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    supervisor.start("api", SLEEP, log_path=tmp_path / "log")
    supervisor.kill("api", signal.SIGTERM)
    wait_until(lambda: bool(told))
    before = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - before < BACKOFF_FIRST_S
    assert told == ["[api] exited with -15, restarting in 0.5 s"]


def test_one_name_runs_once(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("api", SLEEP, log_path=tmp_path / "log")
    with pytest.raises(ValueError, match="api runs already"):
        supervisor.start("api", SLEEP, log_path=tmp_path / "log")
