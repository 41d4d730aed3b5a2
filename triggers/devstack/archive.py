"""An archive of Kafka's loaded classes, which halves the start of the broker. Made once per Java, class path and options; only a help:
whatever goes wrong in making it, the broker starts without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runtime.clock import SYSTEM
from triggers.devstack.jars import cache_lock
from triggers.devstack.server import Cancelled

#: Archives of other Javas (one for each virtual environment) kept beside the newest; each has about 65 MB.
ARCHIVES_MAX: Final = 4
#: More are kept if they were used this lately: environments in use at one time must not take each other's away at every start.
IN_USE_S: Final = 86_400.0
#: A build that failed is not tried again before this file is removed.
_FAILED_SUFFIX: Final = ".failed"


def archive_path(cache_dir: Path, java: Path, class_path: Sequence[Path], options: Sequence[str]) -> Path:
    """Where the archive for exactly this combination lies; another Java or another jar has another archive."""
    release = java.parent.parent / "release"
    parts = [str(java), release.read_text() if release.exists() else "", *options]
    parts += [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in class_path]
    return cache_dir / f"classes-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.jsa"


def ensure(path: Path, build: Callable[[Path], None], progress: Callable[[str], None]) -> tuple[str, ...]:
    """JVM options that use the archive, made by `build` if it is not there yet; none if it cannot be made.

    `build` writes the archive to the path it is given and raises `OSError` or `RuntimeError` if it cannot.
    """
    failed = path.with_suffix(_FAILED_SUFFIX)
    # Checked before the lock: the usual start waits for nobody.
    if not path.exists() and not failed.exists():
        with cache_lock(path.parent, progress):
            if not path.exists() and not failed.exists():
                _build(path, failed, build, progress)
    with contextlib.suppress(FileNotFoundError):
        now_s = SYSTEM.now_ms() / 1000
        os.utime(path, (now_s, now_s))  # says when it was last used
    # `auto`: an archive that does not fit after all is ignored by the JVM instead of ending it.
    return (f"-XX:SharedArchiveFile={path}", "-Xshare:auto") if path.exists() else ()


def _build(path: Path, failed: Path, build: Callable[[Path], None], progress: Callable[[str], None]) -> None:
    progress("Kafka: making an archive of its classes, so that later starts are faster (once)")
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    try:
        build(draft)
        draft.replace(path)
        # One for each virtual environment ever seen would fill the disk; the JVM keeps the file it uses open.
        kept = sorted(path.parent.glob("*.jsa"), key=lambda one: one.stat().st_mtime, reverse=True)
        for superseded in kept[ARCHIVES_MAX:]:
            if superseded.stat().st_mtime < SYSTEM.now_ms() / 1000 - IN_USE_S:
                superseded.unlink(missing_ok=True)
    except Cancelled:
        draft.unlink(missing_ok=True)
        raise
    except (OSError, RuntimeError) as error:
        progress(f"Kafka: going on without the archive of classes: {str(error).splitlines()[0]}")
        draft.unlink(missing_ok=True)
        failed.write_text(f"{error}\n")
