"""Run as a script, this becomes a child process that cannot outlive its owner: `guard.py OWNER SIGNAL UID GID PIPE COMMAND…`.

It exists because the death of a parent has to be arranged from inside the child, after the fork and after any change of user (which
clears the arrangement), and a `preexec_fn` is unsafe in a program with threads. Without a pipe (-1) the kernel does it, which only
Linux can; with one a small watcher stays beside the command and reads the pipe, whose other end only the owner holds. It imports
nothing of the project, so that it starts fast.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.5
#: What the watcher grants a command between the death signal and SIGKILL.
_GRACE_S = 5.0


def _arrange_death_signal(death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")


def _watch(pipe: int, command_pid: int, death_signal: int) -> None:
    """End the command when the pipe says that the owner is gone; return when the command ended by itself."""
    # A signal for the command's process group must not take away its watcher.
    os.setsid()
    while os.getppid() == command_pid:
        readable, _, _ = select.select([pipe], [], [], _POLL_S)
        if not readable:
            continue
        os.kill(command_pid, death_signal)
        deadline = time.monotonic() + _GRACE_S
        while os.getppid() == command_pid:
            if time.monotonic() > deadline:
                os.kill(command_pid, signal.SIGKILL)
            time.sleep(0.05)


def main(argv: list[str]) -> int:
    """Become `COMMAND`. Returns only when that is impossible, with 126 (owner gone) or 127 (cannot be run)."""
    owner, death_signal, uid, gid, pipe = (int(word) for word in argv[1:6])
    command = argv[6:]
    if pipe >= 0:
        own_pid = os.getpid()
        if os.fork() == 0:
            _watch(pipe, own_pid, death_signal)
            os._exit(0)
        os.close(pipe)
    try:
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if pipe < 0:
            _arrange_death_signal(death_signal)
        if os.getppid() != owner:
            return 126
        # Python ignores these two, and an ignored signal stays ignored across exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execv(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr, flush=True)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv))
