"""The jars of Kafka: resolved once by `jgo`, checked against the sums pinned beside this module, kept for all stacks of this user.

Every start checks every jar, so a damaged cache is noticed and named; only a start that finds jars missing needs the network. Nothing
unpinned reaches the class path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from triggers.devstack.server import ServerError

KAFKA_VERSION: Final = "4.2.0"
#: The binding has to be of the same version as the slf4j-api that Kafka brings.
COORDINATES: Final = (f"org.apache.kafka:kafka_2.13:jar:{KAFKA_VERSION}:compile", "org.slf4j:slf4j-simple:jar:1.7.36:compile")
SUMS: Final = Path(__file__).with_name("jars.sha256")
_READ_BYTES: Final = 1 << 20
#: What jgo is known to raise on a broken network or a broken file (parse errors are `SyntaxError`s).
_RESOLVER_ERRORS: Final = (OSError, RuntimeError, ValueError, SyntaxError, AssertionError, KeyError)


class JarError(ServerError):
    """A jar is missing, wrong or unknown; the message names it."""


def default_cache() -> Path:
    """The user-wide folder of jars and class archive, below `XDG_CACHE_HOME` if that is set."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "triggers" / f"kafka-{KAFKA_VERSION}"


def parse_sums(text: str) -> dict[str, str]:
    """File name → SHA-256 in hex, from the format of sha256sum. Raises `ValueError` on a line it does not understand."""
    sums: dict[str, str] = {}
    for line in text.splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not name or name in sums:
            raise ValueError(f"not a line of sha256 sums: {line!r}")
        sums[name] = digest
    return sums


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(folder: Path, sums: dict[str, str]) -> list[Path]:
    """The jars of `folder` in the order of `sums`. Raises `JarError` naming the first that is wrong, unknown or missing."""
    unknown = sorted({path.name for path in folder.glob("*.jar")} - sums.keys())
    if unknown:
        raise JarError(f"Kafka: {folder / unknown[0]} is not among the pinned jars ({SUMS.name}); remove it and start again")
    for name, digest in sums.items():
        path = folder / name
        if not path.exists():
            raise JarError(f"Kafka: {path} is missing; remove {folder} and start again")
        found = sha256(path)
        if found != digest:
            raise JarError(f"Kafka: {path} has SHA-256 {found}, but {digest} is pinned; remove {folder} and start again")
    return [folder / name for name in sums]


def jars(cache_dir: Path, progress: Callable[[str], None]) -> list[Path]:
    """The class path of Kafka, every jar checked. Fetches what is pinned if the cache has none; then, and only then, needs the network.

    Raises `JarError` if they cannot be had or one is not the pinned one.
    """
    sums = parse_sums(SUMS.read_text())
    folder = cache_dir / "jars"
    try:
        # Checked before the lock, too: the folder appears complete, and the usual start waits for nobody.
        if not folder.exists():
            with cache_lock(cache_dir, progress):
                if not folder.exists():
                    _fetch(cache_dir, folder, sums, progress)
    except OSError as error:
        raise JarError(f"Kafka: its jars cannot be kept in {cache_dir}: {error}; XDG_CACHE_HOME names another place") from error
    return check(folder, sums)


@contextmanager
def cache_lock(cache_dir: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Held by one process at a time; ends with its holder. Not to be taken twice: that would wait for itself."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"Kafka: waiting for another start that fills {cache_dir}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(cache_dir: Path, folder: Path, sums: dict[str, str], progress: Callable[[str], None]) -> None:
    """Fill `folder`, which appears complete and checked or not at all."""
    progress(f"Kafka: fetching {len(sums)} jars (once)")
    for abandoned in cache_dir.glob("fetch-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir) as scratch:
        draft = Path(scratch) / "jars"
        shared = Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")
        try:
            # What Maven already has on this machine is read, never written: an interrupted download there would stay broken for good.
            _resolve(draft, Path(scratch) / "repository", [shared] if shared.is_dir() else [], sums, progress)
            check(draft, sums)
        except (*_RESOLVER_ERRORS, JarError) as first:
            if not shared.is_dir():
                raise JarError(f"Kafka: the jars could not be fetched: {first}") from first
            progress(f"Kafka: {first}; fetching all of them afresh")
            shutil.rmtree(draft, ignore_errors=True)
            try:
                _resolve(draft, Path(scratch) / "afresh", [], sums, progress)
            except _RESOLVER_ERRORS as error:
                raise JarError(f"Kafka: the jars could not be fetched: {error}") from error
            check(draft, sums)
        draft.replace(folder)


def _resolve(draft: Path, repository: Path, shared: list[Path], sums: dict[str, str], progress: Callable[[str], None]) -> None:
    # Late: only the first start on a machine needs it, and it takes a while to import.
    from jgo.maven import MavenContext  # noqa: PLC0415
    from jgo.parse import Coordinate  # noqa: PLC0415

    context = MavenContext(repo_cache=repository, local_repos=shared)
    wanted = [context.create_dependency(Coordinate.parse(text)) for text in COORDINATES]
    asked, transitive = context.resolver.resolve(wanted)
    artifacts = [one.artifact for one in (*asked, *transitive) if one.scope in {"compile", "runtime"}]
    draft.mkdir()
    size_bytes = 0
    for number, artifact in enumerate(artifacts, start=1):
        source: Path = artifact.resolve()
        shutil.copyfile(source, draft / source.name)
        size_bytes += source.stat().st_size
        if number % 5 == 0 or number == len(artifacts):
            progress(f"Kafka: {number} of {len(sums)} jars, {size_bytes / 1e6:.0f} MB")
