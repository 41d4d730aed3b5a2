from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triggers.devstack.process import Child, Identity, end_process, read_identity, spawn, tail, write_identity

LIMIT_S = 10.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Child]:
    child = spawn("sleeper", ["/bin/sleep", "60"], log_path=tmp_path / "log")
    yield child
    child.kill()


def test_a_live_process_is_recognised() -> None:
    ours = Identity.of(os.getpid())
    assert ours is not None
    assert ours.alive()


def test_a_pid_that_went_to_another_process_is_not_the_same() -> None:
    assert not Identity(os.getpid(), "another start").alive()


def test_an_identity_survives_its_file(tmp_path: Path) -> None:
    write_identity(tmp_path / "pid", Identity(1, "then"))
    assert read_identity(tmp_path / "pid") == Identity(1, "then")


@pytest.mark.parametrize("text", ["", "123", "{}", '{"pid": "x", "started": ""}', "null"])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert read_identity(tmp_path / "pid") is None
    assert read_identity(tmp_path / "missing") is None


def test_a_process_of_another_run_is_ended(sleeper: Child) -> None:
    end_process(sleeper.identity, signal.SIGTERM, LIMIT_S)
    assert sleeper.wait(LIMIT_S) == -signal.SIGTERM


def test_a_stranger_with_the_pid_is_left_alone(sleeper: Child) -> None:
    end_process(Identity(sleeper.pid, "another start"), signal.SIGTERM, LIMIT_S)
    assert sleeper.alive()


def test_a_paused_child_can_be_stopped(sleeper: Child) -> None:
    sleeper.send(signal.SIGSTOP)
    assert sleeper.stop(signal.SIGTERM, LIMIT_S) == -signal.SIGTERM


def test_a_child_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn("deaf", ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do /bin/sleep 0.1; done"], log_path=log)
    wait_until(lambda: log.read_text() == "ready\n")
    assert child.stop(signal.SIGTERM, 0.2) == -signal.SIGKILL


def test_a_command_that_cannot_run_says_so(tmp_path: Path) -> None:
    child = spawn("none", ["/does/not/exist"], log_path=tmp_path / "log")
    assert child.wait(LIMIT_S) == 127
    assert "/does/not/exist" in tail(tmp_path / "log")


def test_a_child_has_the_default_signals(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn("pipe", ["/bin/sh", "-c", "kill -PIPE $$; echo ignored"], log_path=log)
    assert child.wait(LIMIT_S) == -signal.SIGPIPE


def test_resident_memory_is_told(sleeper: Child) -> None:
    wait_until(lambda: (found := sleeper.rss_bytes()) is None or found > 100_000)  # little right after it was started


def test_a_tail_is_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"{number}\n" for number in range(100_000)))
    assert tail(tmp_path / "log", 2) == "    99998\n    99999"
    assert tail(tmp_path / "missing") == ""


@pytest.mark.parametrize("watch", [False, True], ids=["kernel", "watcher"])
@pytest.mark.parametrize("from_thread", [False, True], ids=["main", "thread"])
def test_a_child_dies_with_its_owner_but_not_with_the_thread_that_asked(tmp_path: Path, watch: bool, from_thread: bool) -> None:
    if not watch and sys.platform != "linux":
        pytest.skip("the kernel's death signal is Linux's")
    program = textwrap.dedent(
        f"""
        import sys, threading, time
        from pathlib import Path
        from triggers.devstack.postgres import command_line
        from triggers.devstack.process import spawn

        def start():
            child = spawn("sleeper", ["/bin/sleep", "60"], log_path=Path({str(tmp_path / "log")!r}), watch={watch})
            while command_line(child.pid)[:1] != ["/bin/sleep"]:
                time.sleep(0.01)
            print(child.pid, flush=True)

        if {from_thread}:
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()
        else:
            start()
        print(sys.stdin.readline(), flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        child = Identity.of(int(owner.stdout.readline()))
        assert child is not None
        try:
            # An answer from after the end of the thread: a signal sent because of it has arrived by then.
            owner.stdin.write("ping\n")
            owner.stdin.flush()
            assert owner.stdout.readline() == "ping\n"
            assert child.alive()
            owner.kill()
            wait_until(lambda: not child.alive())
        finally:
            end_process(child, signal.SIGKILL, LIMIT_S)
            owner.kill()
