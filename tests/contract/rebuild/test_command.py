"""What the command says and how it exits."""

from __future__ import annotations

import json
import subprocess

import pytest

from projections.rebuild import Progress
from runtime.settings import Settings
from tests.backends import Servers
from tests.contract.rebuild.rig import execute, fetch, sums
from tests.contract.rebuild.test_kills import environment_of
from triggers.commands.meter import meter_line
from triggers.system import argv


def run(settings: Settings, servers: Servers, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = argv("rebuild", *arguments)
    return subprocess.run(command, env=environment_of(settings, servers), capture_output=True, text=True, check=False, timeout=120)


def test_a_difference_is_a_line_with_event_and_position_and_fails_the_command(live: Settings, own_servers: Servers) -> None:
    some = "SELECT organization || '/' || mode, event_id, partition, position FROM inbox LIMIT 1"
    ((owner, event_id, partition, position),) = fetch(live, some)
    execute(live, "UPDATE inbox SET subject = 'made up' WHERE event_id = %s", event_id)
    before = sums(live)
    for more in ([], ["--json"]):
        finished = run(live, own_servers, "all", *more)
        assert finished.returncode == 1
        assert f"inbox {owner} {event_id} events.accepted[{partition}]@{position}: differs in subject\n" in finished.stderr
        assert "`triggers rebuild all --accept`" in finished.stderr
        assert sums(live) == before
        if more:
            told = json.loads(finished.stdout)
            assert (told["equal"], told["swapped"], told["records"], told["resumed"]) == (False, False, 0, True)
        else:
            assert "1 DIFFERENCES" in finished.stdout
    accepted = run(live, own_servers, "all", "--accept")
    assert accepted.returncode == 0, accepted.stderr
    assert "put in place" in accepted.stdout
    assert sums(live)["inbox"] != before["inbox"]


@pytest.mark.parametrize("options", [["--accept"], ["--keep-old"]])
def test_options_that_contradict_are_refused(options: list[str], live: Settings, own_servers: Servers) -> None:
    finished = run(live, own_servers, "all", "--verify-only", *options)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "leave out --accept and --keep-old" in finished.stderr


def test_a_live_fold_that_went_back_asks_for_a_restart(live: Settings, own_servers: Servers) -> None:
    execute(live, "UPDATE projection_offsets SET next_offset = 0 WHERE topic = 'inbox.acks'")
    finished = run(live, own_servers, "all", "--verify-only")
    assert finished.returncode == 1
    assert "went back" in finished.stderr
    assert "--restart" in finished.stderr


def test_a_live_fold_past_the_end_of_its_topic_is_refused(live: Settings, own_servers: Servers) -> None:
    execute(live, "UPDATE projection_offsets SET next_offset = 100000000 WHERE topic = 'inbox.acks' AND partition = 0")
    finished = run(live, own_servers, "all", "--verify-only")
    assert finished.returncode == 1
    assert "is this its broker?" in finished.stderr


def test_the_progress_line_tells_share_rate_and_time_left() -> None:
    assert meter_line(Progress("load", 120_000, 480_000, 3)) == "load: 120,000 of 480,000 records (25 %), 40,000/s, 9 s left"
    assert meter_line(Progress("compare inbox", 1, 6, 0)) == "compare inbox: 1 of 6"
