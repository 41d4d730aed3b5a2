"""`triggers dev` as a person runs it: events arrive, whatever ends it leaves nothing running, and the next start needs no network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.test_devstack import descendants, wait_until
from triggers.system import argv

FIRST_DELIVERY_S = 120.0
#: Run in a network namespace of its own, where there is no loopback until it is switched on (netdevice(7): SIOCSIFFLAGS, IFF_UP).
LOOPBACK_UP = (
    "import fcntl, os, socket, struct, sys; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1)); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def without_network() -> list[str]:
    """Prefix of a command that can reach nothing but itself; empty where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0 or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
        return []
    return [unshare, "-n", sys.executable, "-c", LOOPBACK_UP]


class Dev:
    """One run. `out` is what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def out(self) -> str:
        return self._path.read_text()

    def wait_delivered(self) -> None:
        deadline = time.monotonic() + FIRST_DELIVERY_S
        while "signature verified" not in self.out:
            assert self.process.poll() is None, self.out
            assert time.monotonic() < deadline, self.out
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> int:
        """Its status once nothing of it runs any more."""
        below = descendants(self.process.pid)
        assert len(below) >= 7, "three servers and four processes"
        self.process.send_signal(number)
        status = self.process.wait(60)
        wait_until(lambda: not any(identity.alive() for identity in below), f"nothing runs after {number.name}")
        return status


@contextmanager
def dev(folder: Path, name: str, prefix: Sequence[str] = ()) -> Iterator[Dev]:
    path = folder / f"{name}.out"
    with path.open("wb") as out:
        command = [*prefix, *argv("dev", "--samples", "--port", "0", "--state", str(folder / "state"))]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield Dev(process, path)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.verify
@pytest.mark.timeout(400)
def test_events_arrive_nothing_is_left_running_and_the_next_start_needs_no_network(tmp_path: Path) -> None:
    keys = []
    for number, prefix in ((signal.SIGKILL, []), (signal.SIGTERM, without_network()), (signal.SIGINT, [])):
        with dev(tmp_path, number.name, prefix) as running:
            running.wait_delivered()
            status = running.end(number)
            keys.append(re.findall(r"demo key +(zap_live_\w+)", running.out))
            assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0), running.out
            assert "Traceback" not in running.out
            if number != signal.SIGKILL:
                assert running.out.rstrip().endswith("stopped")
    assert len(keys[0]) == 1
    assert keys[0] == keys[1] == keys[2], "the state, with the demo organization in it, survives all of it"
