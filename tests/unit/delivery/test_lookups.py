"""Look-ups in threads: names whose servers never answer cost the others nothing, one look-up at a time for each name."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from delivery import lookups
from delivery.lookups import QUICK_MAX, Lookups

TIMEOUT_S = 1.5


class Servers:
    """Names that begin with `silent` are not answered before `answer`."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: Counter[str] = Counter()

    def lookup(self, name: str) -> Sequence[str]:
        self.asked[name] += 1
        if name.startswith("silent"):
            self.answer.wait(60)
        if name.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return ["192.0.2.1"]


@pytest.fixture
def servers() -> Iterator[Servers]:
    one = Servers()
    yield one
    one.answer.set()


async def unanswered(names: Sequence[asyncio.Task[Sequence[str]]]) -> list[int | None]:
    found = await asyncio.gather(*names, return_exceptions=True)
    return [one.errno if isinstance(one, OSError) else None for one in found]


async def test_more_silent_names_than_there_are_places_hold_up_nobody_else(servers: Servers) -> None:
    found = Lookups(servers.lookup, TIMEOUT_S)
    silent = [asyncio.create_task(found.find(f"silent{number}")) for number in range(2 * QUICK_MAX)]
    await asyncio.sleep(0)
    assert await found.find("good") == ["192.0.2.1"]
    assert await unanswered(silent) == [socket.EAI_AGAIN] * len(silent)
    # They are known now: as many again take no place that others wait for.
    again = [asyncio.create_task(found.find(f"silent{number}")) for number in range(2 * QUICK_MAX)]
    await asyncio.sleep(0)
    began_s = time.monotonic()
    assert await found.find("other") == ["192.0.2.1"]
    assert time.monotonic() - began_s < TIMEOUT_S / 3, "no waiting at all"
    assert await unanswered(again) == [socket.EAI_AGAIN] * len(again)
    assert set(servers.asked.values()) == {1}, "one look-up at a time for each name"


async def test_there_is_an_end_to_how_many_hang_and_the_rest_are_told_at_once(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "HANGING_MAX", 8)
    found = Lookups(servers.lookup, TIMEOUT_S)
    for round_of_eight in range(2):
        silent = [asyncio.create_task(found.find(f"silent{8 * round_of_eight + number}")) for number in range(8)]
        assert await unanswered(silent) == [socket.EAI_AGAIN] * 8
    servers.answer.set()  # all end; they are known
    while threading.active_count() > 1 and any(one.name == "lookup" for one in threading.enumerate()):
        await asyncio.sleep(0.01)
    servers.answer.clear()
    again = [asyncio.create_task(found.find(f"silent{number}")) for number in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror, match="too many"):
        await found.find("silent8")
    assert await found.find("good") == ["192.0.2.1"]
    assert await unanswered(again) == [socket.EAI_AGAIN] * 8
    assert servers.asked["silent8"] == 1


async def test_a_name_that_is_answered_again_is_one_like_others(servers: Servers) -> None:
    found = Lookups(servers.lookup, TIMEOUT_S)
    silent = asyncio.create_task(found.find("silent"))
    assert await unanswered([silent]) == [socket.EAI_AGAIN]
    servers.answer.set()
    assert await found.find("silent") == ["192.0.2.1"]
    with pytest.raises(socket.gaierror, match="no such name"):
        await found.find("none")
