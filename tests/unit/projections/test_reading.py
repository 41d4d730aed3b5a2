"""What became of an event, while it is on its way from the log into the folds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from projections import cursors, queries
from projections.cursors import Position
from projections.queries import Lost, Owner
from projections.reading import Reading
from runtime.clock import SYSTEM
from schemas import ids
from schemas.problems import ProblemError

OWNER = Owner(ids.organization_id(1, bytes(10)), "live")
EVENT, ORIGINAL = (ids.event_id(number, bytes(10)) for number in (1, 2))
OFFSET = 7


class World:
    """The folds and the end of the log. `folded` is when the event comes into the folds: after that many things were asked."""

    def __init__(self, folded: int | None) -> None:
        self.asked = 0
        self._folded = folded

    def there(self) -> bool:
        self.asked += 1
        return self._folded is not None and self.asked > self._folded

    @asynccontextmanager
    async def connection(self, *_: Any, **__: Any) -> AsyncIterator[None]:
        yield

    async def find(self, _owner: Owner, _event_id: str, high: int) -> str | None:
        self.asked += 1
        return "pending" if high < OFFSET else None


def reading(world: World, monkeypatch: pytest.MonkeyPatch, *, duplicate: bool, mark: str | None = None) -> Reading:
    async def high(*_: Any) -> int:
        # Another event, above ours, may have moved the inbox on; ours does so itself.
        return OFFSET if world.there() or duplicate else OFFSET - 1

    async def found(*_: Any) -> Any:
        return "row" if world.there() and not duplicate else None

    async def lost(*_: Any) -> Lost | None:
        return Lost(ORIGINAL, "duplicate", 0, OFFSET, 1_000, "a.b") if world.there() and duplicate else None

    async def in_clear(_connection: Any, _keys: Any, _owner: Any, _id: Any, found: Any) -> Any:
        return found, False

    async def kept_from(*_: Any) -> str | None:
        return mark

    async def attempts(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(queries, "ingested_high", high)
    monkeypatch.setattr(queries, "find_event", found)
    monkeypatch.setattr(queries, "find_duplicate", lost)
    monkeypatch.setattr(queries, "find_attempts", attempts)
    monkeypatch.setattr(queries, "find_held", attempts)
    monkeypatch.setattr("projections.reading._accepted", lambda event_id, *_, **__: {"id": event_id, "status": "accepted"})
    monkeypatch.setattr("projections.opening.event", in_clear)
    monkeypatch.setattr(queries, "kept_from", kept_from)
    monkeypatch.setattr(Reading, "_connection", world.connection)
    return Reading(cast(Any, None), cast(Any, None), cast(Any, world), SYSTEM, cast(Any, None), cursor_key=b"k", partitions=4)


@pytest.mark.parametrize("folded", range(6))
async def test_an_event_that_comes_into_the_inbox_while_it_is_asked_for_is_never_unknown(
    folded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await reading(World(folded), monkeypatch, duplicate=False).event(OWNER, EVENT)
    assert document["status"] in ("pending", "accepted")


@pytest.mark.parametrize("folded", range(5))
async def test_a_duplicate_that_is_folded_behind_the_inbox_is_found_when_the_look_is_over(
    folded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await reading(World(folded), monkeypatch, duplicate=True).event(OWNER, EVENT)
    assert (document["status"], document["original_id"]) == ("duplicate", ORIGINAL)


async def test_what_is_nowhere_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProblemError):
        await reading(World(None), monkeypatch, duplicate=True).event(OWNER, EVENT)


@pytest.mark.parametrize(("mark", "said"), [(EVENT, None), (ORIGINAL, "1970-01-01T00:00:00.002Z")])
async def test_what_is_below_the_mark_of_retention_is_said_to_be_no_longer_kept(
    mark: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProblemError) as raised:
        await reading(World(None), monkeypatch, duplicate=True, mark=mark).event(OWNER, EVENT)
    assert raised.value.members.get("kept_from") == said


@pytest.mark.parametrize(
    ("after", "removed", "missed"),
    [
        # Of two generations the later comes behind the earlier, whatever the offsets and partitions are.
        (Position(1, 5, 900), Position(2, 3, 4), True),
        (Position(2, 3, 4), Position(1, 5, 900), False),
        (Position(2, 3, 4), Position(2, 3, 4), False),
        (Position(1, 5, 900), Position(1, 5, 901), True),
        (Position(1, 9, -1), Position(1, 5, 0), True),  # where an inbox was empty, its cursors name the partition of now
        (Position(1, 5, 900), None, False),
    ],
)
async def test_a_gap_behind_a_cursor_is_told_of_once_also_across_topic_generations(
    after: Position, removed: Position | None, missed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(*_: Any, **__: Any) -> queries.Page:
        return queries.Page([], False, removed)

    async def opened(*_: Any) -> list[Any]:
        return []

    bound = (*OWNER, "all", "")
    ours = reading(World(None), monkeypatch, duplicate=False)
    monkeypatch.setattr(queries, "page", page)
    monkeypatch.setattr("projections.opening.page", opened)

    async def ask(cursor: str) -> tuple[Any, str]:
        found = await ours.page(OWNER, status="all", event_type=None, cursor=cursor, limit=10, wait_s=0)
        return found["truncated"], found["next_cursor"]

    told, following = await ask(cursors.encode(after, b"k", *bound))
    if removed is None or not missed:
        assert (told, cursors.decode(following, b"k", *bound)) == (None, after)
    else:
        assert told == {"first": after._replace(offset=after.offset + 1)._asdict(), "last": removed._asdict()}
        assert cursors.decode(following, b"k", *bound) == removed
    assert await ask(following) == (None, following)
