"""Names looked up in threads: one look-up at a time for each name, and names whose servers are silent never hold up the others.

The C library's resolver cannot be told to stop, so a look-up may hold its thread for as long as the library likes. One that takes long
gives its place back and is counted among those that hang; its name is remembered, and its next look-ups take no place of the others at all.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

#: Look-ups under way, a thread each; and those that hang, beside them.
QUICK_MAX: Final = 64
HANGING_MAX: Final = 256
#: A look-up hangs after this part of the time that its callers wait: so many may begin before somebody's time is over.
_HANGS_SHARE: Final = 1 / 3
#: A name that hung once is counted among those that hang for this long, or until it is answered in time.
_REMEMBERED_S: Final = 600.0
_REMEMBERED_MAX: Final = 10_000

#: A name to its addresses in the order to try them. Blocks. Raises `OSError`.
Lookup = Callable[[str], Sequence[str]]


class Lookups:
    """The look-ups of one event loop. `timeout_s`: how long callers wait."""

    def __init__(self, lookup: Lookup, timeout_s: float) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._running: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._quick = asyncio.Semaphore(QUICK_MAX)
        self._hanging: set[str] = set()
        #: Name → until when it is remembered, oldest first.
        self._slow: dict[str, float] = {}

    async def find(self, name: str) -> Sequence[str]:
        """Raises `OSError`; `EAI_AGAIN` where there was no answer in time, or no room for a name like this."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if name not in self._running:
                    await self._begin(name)
                return await asyncio.shield(self._running[name])
        except TimeoutError:  # not as itself, which aiohttp and we take for the end of the attempt
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {self._timeout_s} s") from None

    async def _begin(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        if self._slow.get(name, 0.0) > loop.time():
            if len(self._hanging) >= HANGING_MAX:
                raise socket.gaierror(socket.EAI_AGAIN, "name servers were silent before, and too many look-ups wait for such")
            self._hanging.add(name)
        else:
            await self._quick.acquire()
            if name in self._running:
                self._quick.release()
                return
        self._start(name, loop)

    def _start(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own that nobody waits for at the end: a pool's threads would hold the process until they are done."""
        future = self._running[name] = loop.create_future()
        late = loop.call_later(_HANGS_SHARE * self._timeout_s, self._hangs, name)

        def ended(_: object) -> None:
            del self._running[name]
            if loop.time() < late.when():
                self._slow.pop(name, None)
            late.cancel()
            if name in self._hanging:
                self._hanging.discard(name)
            else:
                self._quick.release()
            if not future.cancelled():
                future.exception()  # maybe nobody waits any more

        def settle(found: Sequence[str], error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(found)
            else:
                future.set_exception(error)

        def work() -> None:
            found: Sequence[str] = ()
            failed: Exception | None = None
            try:
                found = self._lookup(name)
            except OSError as error:
                failed = error
            except Exception as error:  # noqa: BLE001 - a name the codec cannot take, anything: the thread must settle its future
                failed = socket.gaierror(socket.EAI_FAIL, repr(error))
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found, failed)

        future.add_done_callback(ended)
        threading.Thread(target=work, name="lookup", daemon=True).start()

    def _hangs(self, name: str) -> None:
        self._slow.pop(name, None)
        if len(self._slow) >= _REMEMBERED_MAX:
            del self._slow[next(iter(self._slow))]
        self._slow[name] = asyncio.get_running_loop().time() + _REMEMBERED_S
        if name not in self._hanging and len(self._hanging) < HANGING_MAX:
            self._hanging.add(name)
            self._quick.release()
