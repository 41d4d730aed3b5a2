"""One quota, two OS processes, a real Redis: together they grant what one would, at whatever moments they ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from access.limits import WINDOW_S
from runtime.settings import Settings
from schemas import ids
from tests.contract.quota_model import Model
from triggers.devstack.ports import free_ports
from triggers.devstack.redis import Redis

BEGIN_MS = 1_790_000_000_000


class Worker:
    """A process with a limiter of its own (see `quota_worker`)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, organization: str, now_ms: int, limit: int, turns: list[list[int]]) -> None:
        """Asks and does not wait: the other one asks at the same time."""
        assert self._process.stdin is not None
        asked = {"now": now_ms, "organization": organization, "limit": limit, "turns": turns}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def running(url: str) -> Iterator[list[Worker]]:
    """Two of them."""
    command = [sys.executable, "-m", "tests.contract.quota_worker", url]
    with ExitStack() as stack:
        made = [stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) for _ in range(2)]
        yield [Worker(process) for process in made]
        for process in made:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module")
def workers(settings: Settings) -> Iterator[list[Worker]]:
    with running(settings.redis.url.get_secret_value()) as made:
        yield made


#: Of one process in one step: turns one behind the other, each of takes that share an event-loop tick.
TURNS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=5)
PASSED_MS = st.one_of(st.integers(0, 3_000), st.sampled_from([0, 999, 1_000, 30_000, 59_000, 60_000, 61_000, 130_000]))


@given(steps=st.lists(st.tuples(PASSED_MS, TURNS, TURNS), min_size=1, max_size=10), limit=st.integers(1, 25))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_processes_at_once_are_granted_what_one_would_be(
    steps: list[tuple[int, list[list[int]], list[list[int]]]], limit: int, workers: list[Worker]
) -> None:
    organization, now_ms, model, granted = ids.organization_id(1, os.urandom(10)), BEGIN_MS, Model(WINDOW_S), Model(WINDOW_S)
    for passed_ms, *turns in steps:
        now_ms += passed_ms
        takes = _both(workers, organization, now_ms, limit, turns)
        demand = sum(count for mine in turns for turn in mine for count in turn)
        if not demand:
            continue
        expected, left, reset_ms = model.take(now_ms, limit, demand)
        admitted = sum(count for count, _ in takes)
        assert admitted == expected
        granted.admitted.append((now_ms, admitted))
        for count, reset_s in takes:
            assert count or not left, "nobody is refused who fits"
            assert reset_s == -(-reset_ms // 1_000) or not count or left, "whoever is refused is told when the quota grows"
        refused = [reset_s for count, reset_s in takes if not count]
        if refused:
            assert model.copy().take(now_ms + refused[0] * 1_000, limit, 1)[0] == 1
    assert granted.most_in_any_window() <= limit
    # Use it up, be refused, wait as long as told, be let in: by the process that was not told, too.
    _both(workers, organization, now_ms, limit, [[[limit]], []])
    ((count, reset_s),) = _both(workers, organization, now_ms, limit, [[[1]], []])
    assert count == 0
    later_ms = now_ms + reset_s * 1_000
    assert [taken for taken, _ in _both(workers, organization, later_ms, limit, [[], [[1]]])] == [1]


def _both(workers: list[Worker], organization: str, now_ms: int, limit: int, turns: list[list[list[int]]]) -> list[list[int]]:
    """[granted, reset_s] of every take, asked for by both at once."""
    for worker, mine in zip(workers, turns, strict=True):
        worker.ask(organization, now_ms, limit, mine)
    answers = [worker.answer() for worker in workers]
    assert all(answer["redis"] for answer in answers)
    return [take for answer in answers for take in answer["takes"]]


def test_without_redis_each_process_keeps_the_window_for_itself(tmp_path: Path) -> None:
    """RELIABILITY I17: at most the limit times the number of processes, and nothing that was granted before is granted anew."""
    redis = Redis(tmp_path / "redis", port=free_ports(1)[0], password="secret", progress=lambda _: None)
    redis.bring_up()
    organization, limit = ids.organization_id(1, os.urandom(10)), 10
    try:
        with running(redis.url) as workers:
            _both(workers, organization, BEGIN_MS, limit, [[[3]], [[2]]])
            redis.kill()
            for worker in workers:
                worker.ask(organization, BEGIN_MS + 1_000, limit, [[1] * limit, [1] * limit])
            answers = [worker.answer() for worker in workers]
            assert not any(answer["redis"] for answer in answers)
            assert [sum(count for count, _ in answer["takes"]) for answer in answers] == [limit - 3, limit - 2]
            refused = [reset_s for answer in answers for count, reset_s in answer["takes"] if not count]
            assert set(refused) == {WINDOW_S}, "the oldest bucket leaves the window a second later than a minute after it"
            for worker in workers:
                worker.ask(organization, BEGIN_MS + 1_000 + WINDOW_S * 1_000, limit, [[1]])
            assert [worker.answer()["takes"][0][0] for worker in workers] == [1, 1]
    finally:
        redis.stop()
