"""Who may work on the shadow: its owner, those who help it, and nobody else as long as one of them lives."""

from __future__ import annotations

import pytest

from projections import sessions
from projections.sessions import RebuildError, connect, helping, own
from runtime.settings import Settings


async def test_no_other_rebuild_begins_before_those_who_helped_a_killed_one_are_gone(
    tables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_LOCK_PAUSE_S", 0.01)
    first, second = await connect(tables.postgres, "folds"), await connect(tables.postgres, "folds")
    try:
        await own(first)
        async with helping(tables.postgres, first.info.backend_pid):
            await first.close()  # as a kill does; its helper has not noticed yet
            with pytest.raises(RebuildError, match="another rebuild is running"):
                await own(second)
        await second.close()
        second = await connect(tables.postgres, "folds")
        monkeypatch.undo()
        await own(second)
    finally:
        await second.close()


async def test_a_statement_of_a_rebuild_that_was_killed_ends_and_the_next_one_begins(tables: Settings) -> None:
    first, second = await connect(tables.postgres, "folds"), await connect(tables.postgres, "folds")
    try:
        await own(first)
        async with helping(tables.postgres, first.info.backend_pid) as helper:
            for connection in (first, helper):
                connection.pgconn.send_query(b"SELECT pg_sleep(120)")  # as an index that takes minutes
                connection.pgconn.finish()  # as a kill does: the socket closes, and nothing was cancelled
        await own(second)
    finally:
        await second.close()


async def test_nobody_helps_a_rebuild_that_is_over(tables: Settings) -> None:
    owner = await connect(tables.postgres, "folds")
    await own(owner)
    gone = owner.info.backend_pid
    await owner.close()
    with pytest.raises(RebuildError, match="is over"):
        async with helping(tables.postgres, gone):
            pass


async def test_those_who_help_do_not_keep_out_their_own_owner(tables: Settings) -> None:
    owner = await connect(tables.postgres, "folds")
    try:
        await own(owner)
        async with helping(tables.postgres, owner.info.backend_pid), helping(tables.postgres, owner.info.backend_pid):
            pass
    finally:
        await owner.close()
