"""The move to more partitions, from the first look to the last record (ADR 17). Offline, and gone on with by the same command wherever it
was stopped: until the control plane is taken away everything is as it was, and stays so when the move is given up.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
from msgspec.structs import replace

from access import audit
from projections.rebuild import Progress
from runtime import migrations, topics
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.settings import Settings
from runtime.sql import load
from schemas.topics import EVENTS_INGESTED
from triggers.backup import control, cut
from triggers.backup.check import check, read_manifest
from triggers.backup.manifest import Manifest
from triggers.backup.restore import fits, restore
from triggers.backup.save import save
from triggers.backup.target import Target
from triggers.grow.clearing import end_sessions, tables_taken, take_log, take_tables
from triggers.grow.folder import Folder, State, opened
from triggers.grow.hold import Hold
from triggers.grow.rewrite import NotReady, drained, rewrite

_REQUEST_TIMEOUT_S: Final = 30.0
_ID_BYTES: Final = 8


class NotTheSame(RuntimeError):
    """The inbox is not what it was. The text says what to do."""


@dataclass
class Grown:
    """What was done. `kept_longer`: as of `triggers.backup.restore.Restored`."""

    state: State
    generation: int
    records: int
    rows: int
    resumed: bool
    kept_longer: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def grow(settings: Settings, directory: Path, partitions: int, clock: Clock, report: Callable[[Progress], None]) -> Grown:
    """Move the log to topics with `partitions`, by way of `directory`.

    Raises `NotReady`, `NotTheSame`, `ValueError` unless there are more partitions, and as `save`, `rewrite`, `check` and `restore` do.
    Until it raises after the control plane was taken away, everything is as it was.
    """
    with opened(directory) as folder:
        return _Move(settings, folder, partitions, clock, report).run()


def give_up(settings: Settings, directory: Path) -> State:
    """Let the system work again as it was. Raises `NotReady` where it is too late, or nothing was begun."""
    with opened(directory) as folder:
        state = folder.read()
        if state is None:
            raise NotReady(f"nothing was begun in {directory}")
        if _replaced(settings, state):
            raise NotReady(f"it is too late: {_too_late(folder)}")
        _hold(with_partitions(settings, state.old), state).lift()
        state = replace(state, phase="preparing")
        folder.write(state)
        return state


def with_partitions(settings: Settings, partitions: int) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"partitions": partitions})})


def _too_late(folder: Folder) -> str:
    return (
        f"what was there is replaced. The same command goes on; to go back, empty the servers, and `triggers restore {folder.before}` "
        "with the old TRIGGERS_KAFKA__PARTITIONS"
    )


def _replaced(settings: Settings, state: State) -> bool:
    """Whether the control plane was taken away. Raises `NotReady` while nobody can know, `psycopg.Error`."""
    if state.phase == "replacing":
        return tables_taken(settings, Target(settings, state.after).schema)
    return state.phase != "preparing"


def _hold(settings: Settings, state: State) -> Hold:
    return Hold(settings, state.id, Target(settings, state.after).mark if state.after else None)


def _inbox(settings: Settings) -> tuple[int, str]:
    with control.session(settings.postgres) as connection:
        rows, total = connection.execute(load("triggers", "inbox_sum")).fetchone() or (0, "")
    return int(rows), str(total)


class _Move:
    def __init__(self, settings: Settings, folder: Folder, partitions: int, clock: Clock, report: Callable[[Progress], None]) -> None:
        self._given = settings
        self._folder = folder
        self._partitions = partitions
        self._clock = clock
        self._report = report

    def run(self) -> Grown:
        state = self._folder.read()
        resumed = state is not None and _replaced(self._given, state)
        if state is not None and resumed:
            if state.new != self._partitions:
                raise NotReady(f"{self._folder.path} is of a move to {state.new} partitions: give that number, or take another folder")
        else:
            state = self._prepare(state)
        if state.phase == "replacing":
            state = self._replace(state)
        done = self._restore(state)
        done.resumed = resumed
        return done

    # -- nothing is changed

    def _prepare(self, begun: State | None) -> State:
        old = self._old()
        settings = with_partitions(self._given, old)
        state = State(id=secrets.token_hex(_ID_BYTES), old=old, new=self._partitions)
        if begun is not None:
            state = replace(state, id=begun.id, after=begun.after)
        self._folder.write(state)
        hold = _hold(settings, state)
        hold.put()
        try:
            reach("grow.marked")
            state = self._save(settings, hold, state)
            return self._take(settings, state)
        except BaseException:
            # What a kill leaves is left as well where it cannot be known: the same command, or giving up, makes it right.
            if not self._is_replaced(settings):
                left = self._folder.read() or state
                _hold(settings, left).lift()
                self._folder.write(replace(left, phase="preparing"))
            raise

    def _old(self) -> int:
        """How many partitions there are. Raises as `grow`, before anything is written."""
        if migrations.current(self._given.postgres) != migrations.newest():
            raise NotReady("the tables are not at the newest schema: run `triggers migrate`")
        client = topics.admin(self._given.kafka)
        here = client.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        if EVENTS_INGESTED not in here:
            raise NotReady("there are no topics yet: set TRIGGERS_KAFKA__PARTITIONS, and run `triggers topics`")
        old = len(here[EVENTS_INGESTED].partitions)
        if self._partitions <= old:
            raise ValueError(f"there are {old} partitions: they only become more")
        return old

    def _is_replaced(self, settings: Settings) -> bool:
        state = self._folder.read()
        try:
            return state is not None and _replaced(settings, state)
        except (NotReady, psycopg.Error):
            return True

    def _save(self, settings: Settings, hold: Hold, state: State) -> State:
        """Both backups, whole, of a system that stands still."""
        hold.nobody()
        taken = cut.take(settings)
        ends = {place: part.end for place, part in taken.ranges.items()}
        drained(ends, taken.committed)
        hold.nothing_waits(ends)
        hold.shut()
        with control.session(settings.postgres) as connection:
            audit.record(
                connection, actor=audit.command_line_actor(), action="topics.growing", organization=None, target=str(state.new),
                detail={"before": {"partitions": state.old}, "after": {"partitions": state.new}},
            )  # fmt: skip
        inbox = _inbox(settings)
        before = save(settings, self._folder.before, self._clock, self._report)
        reach("grow.saved")
        self._folder.clear_after()
        digest = rewrite(self._folder.before, self._folder.after, state.new, self._clock, self._report)
        reach("grow.rewritten")
        check(self._folder.before, self._report)
        checked = check(self._folder.after, self._report)
        fits(with_partitions(settings, state.new), checked.manifest)
        hold.nobody()
        self._stood_still(hold, before.manifest)
        return replace(state, phase="replacing", before=before.digest, after=digest, inbox=inbox)

    def _stood_still(self, hold: Hold, made: Manifest) -> None:
        wanted = {place: part.end for place, part in made.ranges().items()}
        moved = sorted(f"{topic}[{number}]" for (topic, number), end in hold.ends(list(wanted)).items() if end != wanted[topic, number])
        if moved:
            raise NotReady(f"{moved[0]} has grown since it was read: somebody writes. Stop every process, and run this again")

    # -- from here on there is no way back but `before`

    def _take(self, settings: Settings, state: State) -> State:
        self._folder.write(state)
        target = Target(settings, state.after)
        target.mark_log()
        reach("grow.replacing")
        _, made = read_manifest(self._folder.before)
        take_tables(settings, self._folder.before, made, target.schema)
        reach("grow.no_tables")
        return state

    def _replace(self, state: State) -> State:
        settings = with_partitions(self._given, state.old)
        hold = _hold(settings, state)
        end_sessions(settings)
        _, made = read_manifest(self._folder.before)
        take_log(settings, hold, made.generation)
        reach("grow.no_topics")
        hold.unmark()  # that of the restore is there
        state = replace(state, phase="emptied")
        self._folder.write(state)
        reach("grow.emptied")
        return state

    def _restore(self, state: State) -> Grown:
        settings = with_partitions(self._given, state.new)
        _, made = read_manifest(self._folder.after)
        done = Grown(state, made.generation, 0, sum(table.rows for table in made.tables), resumed=False)
        if state.phase == "done":
            return done
        client = topics.admin(settings.kafka)
        # The mark of the restore was there before this phase, and goes when the restore is done.
        if topics.restoring(client) is not None:
            restored = restore(settings, self._folder.after, self._clock, self._report, same_log=True)
            done.records, done.kept_longer, done.warnings = restored.records, restored.kept_longer, restored.warnings
            reach("grow.restored")
        topics.ensure(settings.kafka, settings.delivery.delays_s)
        if (found := _inbox(settings)) != state.inbox:
            raise NotTheSame(
                f"the inbox had {state.inbox[0]} rows and has {found[0]}, or they differ. If processes have run since this command was "
                "stopped, the move is done and `triggers rebuild all --verify-only` says whether the inbox is as the log has it. Else "
                f"start nothing, keep {self._folder.path}, and report it; to go back, empty the servers, and `triggers restore "
                f"{self._folder.before}`"
            )
        done.state = replace(state, phase="done")
        self._folder.write(done.state)
        return done
