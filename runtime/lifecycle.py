"""How processes begin and end: waiting for servers with a limit, stop signals, and ending at once when going on would be wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from runtime.telemetry import log

T = TypeVar("T")

#: Exit statuses (after sysexits.h): a server never came; going on would lose or repeat work.
EXIT_UNAVAILABLE: Final = 69
EXIT_FATAL: Final = 70
EXIT_STALLED: Final = 75

_PROBE_PAUSE_S: Final = 0.2
#: Objects made and not freed after which the youngest are looked through; Python's own number is 700.
_GC_AFTER_OBJECTS: Final = 10_000


class Unavailable(RuntimeError):
    """A server did not answer within the start-up limit."""


def wait_for(name: str, probe: Callable[[], object], timeout_s: float) -> None:
    """Call `probe` until it returns without raising. Raises `Unavailable` naming the server and its last error after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    told = False
    while True:
        try:
            probe()
        except Exception as error:  # any failure of a probe means "not yet"; the last one is reported
            if time.monotonic() >= deadline:
                raise Unavailable(f"{name} did not answer within {timeout_s:g} s: {error}") from error
            if not told:
                log.info("waiting", server=name, timeout_s=timeout_s, error=str(error))
                told = True
            time.sleep(_PROBE_PAUSE_S)
        else:
            return


def settle_memory() -> None:
    """Once a process is made: what it consists of is not looked through again, and cycles are looked for less often.

    A FastAPI process holds some 300,000 objects for good; to look through them stops every request for a tenth of a second. What requests
    leave behind is mostly freed by counting references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_AFTER_OBJECTS, *gc.get_threshold()[1:])


def die(reason: str, status: int = EXIT_FATAL) -> NoReturn:
    """End the process at once. No unwinding: a clean stop would acknowledge and commit work that is not safe yet."""
    log.critical("process.died", reason=reason, status=status)
    sys.stdout.flush()
    os._exit(status)


def leave() -> NoReturn:
    """End the process at once because it was told to, with status 0. For what cannot be told to stop and loses nothing by a kill: a thread
    that waits for a server, a start that is under way."""
    log.info("process.stopped")
    sys.stdout.flush()
    os._exit(0)


async def first(stop: asyncio.Event, work: Callable[..., T], *arguments: Any) -> T:
    """Do `work` in a thread before anything else; returns what it does. Told to stop meanwhile, the process leaves. Raises what `work`
    raises."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        leave()
    stopping.cancel()
    return await working


def beside(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """A task that goes on beside others as long as the process does. Its failure ends the process: what had stopped in silence, such
    as committing or ending slow connections, would be missed only when it is too late."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            die(f"{what} failed: {error!r}")

    task = asyncio.get_running_loop().create_task(work, name=what)
    task.add_done_callback(ended)
    return task


class StallGuard:
    """Ends a process that was stopped (SIGSTOP, a suspended machine) longer than its group membership lasts.

    Another worker has taken over by then: whatever this one still produced would be a zombie's. `beat` is called at least once a second
    by the process's loop; `check` right before anything is produced or committed.
    """

    def __init__(
        self, limit_s: float, *, monotonic: Callable[[], float] = time.monotonic, on_stall: Callable[[str], None] | None = None
    ) -> None:
        self._limit_s = limit_s
        self._monotonic = monotonic
        self._on_stall = on_stall or (lambda reason: die(reason, EXIT_STALLED))
        self._last = monotonic()

    def beat(self) -> None:
        self.check()
        self._last = self._monotonic()

    def check(self) -> None:
        idle_s = self._monotonic() - self._last
        if idle_s > self._limit_s:
            self._on_stall(f"the process stood still for {idle_s:.1f} s, longer than its group waits ({self._limit_s:g} s)")

    async def keep_beating(self, interval_s: float = 0.25) -> None:
        """A task that beats for ever."""
        while True:
            self.beat()
            await asyncio.sleep(interval_s)


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if stop.is_set():
            die("second stop signal", 130)
        stop.set()

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, ask)
