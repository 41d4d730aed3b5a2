"""The folder of a move: what it is about, how far it is, and one command at a time in it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from triggers.backup.files import PART, write_whole
from triggers.backup.manifest import Damaged
from triggers.grow.rewrite import NotReady

BEFORE: Final = "before"
AFTER: Final = "after"
_LOCK: Final = ".lock"
_STATE: Final = "move.json"
_OURS: Final = frozenset({BEFORE, AFTER, _LOCK, _STATE, _STATE + PART})

#: `preparing`: nothing has been replaced. `replacing`: the control plane is taken away, in one transaction, then groups and topics.
#: `emptied`: all of that is gone, and `after` is restored. `done`.
Phase = Literal["preparing", "replacing", "emptied", "done"]


class State(Struct, frozen=True, kw_only=True):
    """`id` names the mark that holds processes back. `old`, `new`: partitions. From `replacing` on: the digests of both backups, and what
    the inbox was, as `triggers/sql/inbox_sum.sql` says it."""

    v: int = 1
    id: str
    old: int
    new: int
    phase: Phase = "preparing"
    before: str = ""
    after: str = ""
    inbox: tuple[int, str] = (0, "")


_decode: Final = msgspec.json.Decoder(State).decode


class Folder:
    """Use `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = path / BEFORE
        self.after = path / AFTER

    def read(self) -> State | None:
        """None: nothing was begun here. Raises `triggers.backup.manifest.Damaged`."""
        try:
            return _decode((self.path / _STATE).read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise Damaged(f"{_STATE} cannot be read ({error})") from None

    def write(self, state: State) -> None:
        """On the disk when this returns."""
        write_whole(self.path / _STATE, msgspec.json.encode(state) + b"\n")

    def clear_after(self) -> None:
        """An empty folder for what is written anew: whatever a command that was killed had written."""
        if self.after.exists():
            shutil.rmtree(self.after)
        self.after.mkdir()


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Raises `NotReady` while another command works in it, or where something else lies in it; `OSError`."""
    path.mkdir(parents=True, exist_ok=True)
    if others := sorted(one.name for one in path.iterdir() if one.name not in _OURS):
        raise NotReady(f"{path} holds {', '.join(others[:3])}: take an empty folder")
    with (path / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotReady(f"another command works in {path}: wait for it") from None
        yield Folder(path)
